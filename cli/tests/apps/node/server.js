"use strict";

const http = require("node:http");

function answer(path) {
  switch (path) {
    case "/":
      return [200, "hello from Node.js\n"];
    case "/health":
      return [200, "ok\n"];
    case "/version":
      return [200, process.env.APP_VERSION ?? ""];
    default:
      return [404, "no such page\n"];
  }
}

if (require.main === module) {
  http
    .createServer((request, response) => {
      const [status, body] = answer(request.url);
      response.writeHead(status).end(body);
    })
    .listen(Number(process.env.PORT ?? 8080));
}

module.exports = { answer };
