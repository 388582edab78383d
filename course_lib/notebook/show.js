// Ties the symbols of an equation to the lines of code, and gives every block of code a button that copies it.
const parts = [...root.querySelectorAll("[data-line]")];
let pinned = null;

function light(lines) {
  for (const part of parts) {
    const inside = (part.dataset.inside ?? part.dataset.line).split(" ");
    part.classList.toggle("cc-lit", lines.some((line) => inside.includes(line)));
  }
}

function pin(part) {
  pinned = pinned === part.dataset.line ? null : part.dataset.line;
  for (const other of parts) {
    if (other.hasAttribute("aria-pressed")) other.setAttribute("aria-pressed", String(other.dataset.line === pinned));
  }
  light(pinned === null ? [part.dataset.line] : [pinned]);
}

for (const part of parts) {
  const on = () => light([part.dataset.line]);
  const off = () => light(pinned === null ? [] : [pinned]);
  part.addEventListener("mouseenter", on);
  part.addEventListener("mouseleave", off);
  part.addEventListener("focus", on);
  part.addEventListener("blur", off);
  if (!part.hasAttribute("tabindex")) continue;
  part.setAttribute("role", "button");
  part.setAttribute("aria-pressed", "false");
  part.addEventListener("click", () => pin(part));
  part.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    pin(part);
  });
}

for (const where of root.querySelectorAll(".cc-where")) {
  const code = where.parentElement.querySelector("code");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  where.append(button);
}
