// htmx: the session's token with every change, and errors in words.
import { marks, toast } from "/static/send.js";

document.addEventListener("htmx:configRequest", (event) => { Object.assign(event.detail.headers, marks()); });
document.addEventListener("htmx:responseError", (event) => {
  let said = {};
  try { said = JSON.parse(event.detail.xhr.responseText); } catch { /* not of ours */ }
  toast([said.what, said.fix].filter(Boolean).join(" - ") || event.detail.xhr.statusText);
});
