
"use strict";
for (const figure of document.querySelectorAll(".stages")) {
  const stages = figure.querySelectorAll(".stage");
  const input = figure.querySelector("input");
  const output = figure.querySelector("output");
  const show = () => {
    stages.forEach((stage, k) => { stage.hidden = k !== Number(input.value); });
    output.value = stages[input.value].dataset.name;
    input.setAttribute("aria-valuetext", output.value);
  };
  input.addEventListener("input", show);
  figure.querySelector(".slider").hidden = false;
  show();
}
