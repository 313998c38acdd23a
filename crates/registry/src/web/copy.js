// Copies commands. Without scripts the buttons stay hidden and the commands can be selected.
async function copy(command) {
  if (navigator.clipboard) return navigator.clipboard.writeText(command.textContent);
  // Without TLS browsers have only this.
  getSelection().selectAllChildren(command);
  document.execCommand("copy");
}
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await copy(button.previousElementSibling);
    button.textContent = "Copied";
  });
}
