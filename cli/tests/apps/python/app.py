import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(path):
    if path == "/":
        return 200, "hello from Python\n"
    if path == "/health":
        return 200, "ok\n"
    if path == "/version":
        return 200, os.environ.get("APP_VERSION", "")
    return 404, "no such page\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
