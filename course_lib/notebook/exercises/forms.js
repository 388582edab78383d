(() => {
  "use strict";
  // The forms work without this script. Here are the spoken explanation, the count, the way to Python, and a poll's
  // second look further down the page.
  const form = document.currentScript?.closest(".course-form")
    ?? document.querySelector(".course-form:not([data-mounted])");
  if (!form || form.hasAttribute("data-mounted")) return;
  form.setAttribute("data-mounted", "");
  const items = [...form.querySelectorAll("fieldset")];
  const status = form.querySelector(".count");
  let sent = 0;

  // Python listens if its field is on the page; then its own words stand below the form.
  const tell = (letters) => {
    const field = form.dataset.bridge && document.querySelector(`.${form.dataset.bridge} input`);
    if (!field) return false;
    field.value = `${++sent}:${letters}`;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
    return true;
  };

  const hidden = (text) => {  // read aloud only: the eye has it beside the option already
    const spoken = document.createElement("span");
    spoken.textContent = `${text} `;
    spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
    return spoken;
  };

  const code = (line) => {
    const element = document.createElement("code");
    element.textContent = line;
    return element;
  };

  const quiz = (target) => {
    const picked = items.map((item) => item.querySelector("input:checked"));
    const letters = picked.map((input) => input?.value ?? "-").join("");
    const answered = picked.filter(Boolean);
    const right = answered.filter((input) => input.closest(".right"));
    const line = code(`answer("${form.dataset.quiz}.quiz", "${letters}")`);
    const count = `${answered.length} of ${items.length} answered, ${right.length} right. `;
    const why = hidden(target.closest(".option").querySelector(".why").textContent);
    if (!tell(letters)) {
      status.replaceChildren(why, `${count}To count the points, choose in a notebook that runs, or run this line: `,
        line);
      return;
    }
    const more = document.createElement("details");
    const title = document.createElement("summary");
    title.textContent = "As a line, for a notebook that you hand in";
    more.append(title, line);
    status.replaceChildren(why, count, more);
  };

  const poll = (target) => {
    const mine = target.closest("label").textContent.trim();
    tell(target.value);
    status.textContent = `You predict ${mine} ${items[0].dataset.later}`;
    for (const recall of document.querySelectorAll(`[data-recall="${form.dataset.poll}"]`)) {
      const words = JSON.parse(recall.dataset.words);
      recall.querySelector(".mine").textContent = `You predicted ${mine}`;
      recall.querySelector(".compared").textContent = !words.measured ? ""
        : words.measured === target.value ? words.fits : words.fitsNot;
    }
  };

  form.addEventListener("change", (event) => (form.dataset.poll ? poll : quiz)(event.target));
})();
