// Say so when the gateway does not answer: what is shown is old then.
for (const event of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
  document.addEventListener(event, () => document.body.classList.add("silent"));
}
document.addEventListener("htmx:afterOnLoad", () => document.body.classList.remove("silent"));
