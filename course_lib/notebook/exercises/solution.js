(() => {
  "use strict";
  // Where a frame may not use the clipboard (Colab), the old command still copies what is selected.
  const box = document.currentScript?.closest(".course-solution")
    ?? [...document.querySelectorAll(".course-solution:not([data-mounted])")].pop();
  if (!box || box.hasAttribute("data-mounted")) return;
  box.setAttribute("data-mounted", "");
  const code = box.querySelector("code");
  box.querySelector("[data-copy]").addEventListener("click", async () => {
    let done = true;
    try { await navigator.clipboard.writeText(code.textContent); } catch {
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    box.querySelector("[role=status]").textContent = done ? "Copied." : "Select the text and copy it by hand.";
  });
})();
