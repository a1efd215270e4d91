// a click on a column's name sorts the table by it; a second click turns the order round
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = head.cellIndex, down = head.dataset.down !== "1";
    head.dataset.down = down ? "1" : "0";
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(b).localeCompare(key(a)) : key(a) - key(b));
    body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
  });
}
// a tap, or the enter key, shows a picture as large as the screen, and small again
for (const picture of document.querySelectorAll("figure img")) {
  const turn = () => picture.classList.toggle("large");
  picture.addEventListener("click", turn);
  picture.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      turn();
    }
  });
}
// tables that are wider than the screen say so
const hint = () => {
  for (const one of document.querySelectorAll(".scroll")) one.classList.toggle("cut", one.scrollWidth > one.clientWidth);
};
addEventListener("resize", hint);
hint();
