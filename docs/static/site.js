// The explorers of the site: pictures drawn when it was built, flipped by their controls. Loads nothing from elsewhere.
"use strict";

document.querySelectorAll(".flip-book").forEach((figure) => {
  const book = JSON.parse(figure.querySelector("script").textContent);
  const [picture, caption, play] = ["img", "figcaption", "button"].map((name) => figure.querySelector(name));
  const turns = [...figure.querySelectorAll(".turns :is(input, select)")];
  const folder = picture.getAttribute("src").replace(/[^/]*$/, "");
  let timer = 0;

  const show = () => {
    let place = 0;
    turns.forEach((turn, k) => {
      const names = book.controls[k].names;
      place = place * names.length + Number(turn.value);
      if (turn.type === "range") {
        turn.setAttribute("aria-valuetext", names[turn.value]);
        turn.nextElementSibling.textContent = names[turn.value];
      }
    });
    const frame = book.frames[place];
    picture.src = folder + frame.file;
    picture.alt = frame.alt;
    caption.textContent = frame.caption;
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "play";
    caption.setAttribute("aria-live", "polite");
  };
  const step = () => {
    if (turns[0].value === turns[0].max) return stop();
    turns[0].stepUp();
    show();
  };

  turns.forEach((turn) => turn.addEventListener("input", () => { stop(); show(); }));
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (turns[0].value === turns[0].max) turns[0].value = 0;
    play.textContent = "pause";
    caption.setAttribute("aria-live", "off"); // a moving picture would be read without end
    timer = setInterval(step, 400);
  });
  // Whoever reaches for a control gets all frames, so that none has to be waited for.
  const fetchAll = () => book.frames.forEach((frame) => { new Image().src = folder + frame.file; });
  ["pointerenter", "focusin"].forEach((name) => figure.addEventListener(name, fetchAll, { once: true }));
  figure.querySelector(".turns").hidden = false;
});

document.querySelectorAll(".take-away button").forEach((button) => {
  button.addEventListener("click", () => print());
  button.hidden = false;
});
