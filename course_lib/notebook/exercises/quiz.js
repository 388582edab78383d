(() => {
  "use strict";
  // The quiz works without this script; here are the spoken explanation, the count, and the line for Python.
  const form = document.currentScript?.closest(".course-quiz")
    ?? document.querySelector(".course-quiz:not([data-mounted])");
  if (!form || form.hasAttribute("data-mounted")) return;
  form.setAttribute("data-mounted", "");
  const items = [...form.querySelectorAll("fieldset")];
  const status = form.querySelector(".count");

  form.addEventListener("change", (event) => {
    const picked = items.map((item) => item.querySelector("input:checked"));
    const answered = picked.filter(Boolean);
    const right = answered.filter((input) => input.closest(".right"));
    const why = event.target.closest(".option").querySelector(".why").textContent;
    const line = `answer("${form.dataset.quiz}.quiz", "${picked.map((input) => input?.value ?? "-").join("")}")`;
    const code = document.createElement("code");
    code.textContent = line;
    const spoken = document.createElement("span");  // read aloud only: the eye has it beside the option already
    spoken.textContent = `${why} `;
    spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
    status.replaceChildren(spoken, `${answered.length} of ${items.length} answered, ${right.length} right. `
      + "To count the points, run this line in a notebook: ", code);
  });
})();
