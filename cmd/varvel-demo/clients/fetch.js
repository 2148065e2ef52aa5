// Fetches a page: fetch.js URL. Prints the status, or the reason of the failure.
const https = require("node:https");
const request = https.get(process.argv[1], (response) => {
  response.resume();
  response.on("end", () => console.log(response.statusCode));
});
request.on("error", (e) => { console.log(e.code ?? e.message); process.exitCode = 1; });
request.setTimeout(10000, () => request.destroy(new Error("timeout")));
