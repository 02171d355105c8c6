"""So much of the Kubernetes API as `kubectl debug` asks for: one pod, to which ephemeral containers can be added.

Usage: api_server.py FILE

Prints the port that it listens on, and writes each patch of the pod into FILE.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "my-app-v1-6c9f7d6b5c-x2v7k", "namespace": "default", "uid": "1"},
    "spec": {
        "securityContext": {},
        "containers": [{"name": "my-app", "image": "shadowtap:0.1.0"}],
    },
    "status": {"phase": "Running"},
}
RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "patch"]},
        {"name": "pods/ephemeralcontainers", "namespaced": True, "kind": "Pod", "verbs": ["get", "patch"]},
    ],
}
ANSWERS = {
    "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": RESOURCES,
    "/api/v1/namespaces/default/pods/" + POD["metadata"]["name"]: POD,
}


class Handler(BaseHTTPRequestHandler):
    def say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        found = ANSWERS.get(self.path.split("?")[0])
        if found is None:
            self.say(404, {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"})
        else:
            self.say(200, found)

    def do_PATCH(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1], "wb") as file:
            file.write(body)
        self.say(200, POD)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
