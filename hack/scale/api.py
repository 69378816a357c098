"""A small client of the API server: kept connections, merge patches, and caches that a watch keeps true. kubectl would
cost a process a request."""

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

KINDS = {
    "pods": "/api/v1", "nodes": "/api/v1", "namespaces": "/api/v1", "configmaps": "/api/v1", "serviceaccounts": "/api/v1",
    "trainingtasks": "/apis/freehold.dev/v1alpha1", "computeleases": "/apis/freehold.dev/v1alpha1",
    "chaintransactions": "/apis/freehold.dev/v1alpha1", "computeaccounts": "/apis/freehold.dev/v1alpha1",
    "computeproviders": "/apis/freehold.dev/v1alpha1", "gpunodes": "/apis/freehold.dev/v1alpha1",
}


class Failed(Exception):
    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


def path(kind, namespace=None, name=None, sub=None):
    parts = [KINDS[kind], *(["namespaces", namespace] if namespace else []), kind, name, sub]
    return "/".join(part for part in parts if part)


class Api:
    """The administrator, or whoever has `token`; `user` is acted for."""

    def __init__(self, kubeconfig, token=None, user=None):
        shown = subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "config", "view", "--raw", "--minify", "-o", "json"],
                               capture_output=True, text=True, check=True)
        config = json.loads(shown.stdout)
        cluster, login = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = urllib.parse.urlsplit(cluster["server"]).netloc
        self.context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        else:
            with tempfile.NamedTemporaryFile() as file:  # ssl reads certificates from files only
                for part in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(login[part]))
                file.flush()
                self.context.load_cert_chain(file.name)
        if user:
            self.headers["Impersonate-User"] = user
        self.local = threading.local()

    def connection(self, timeout=30):
        return http.client.HTTPSConnection(self.server, context=self.context, timeout=timeout)

    def request(self, method, where, body=None, kind="application/json"):
        return json.loads(self.answer(method, where, body, kind))

    def text(self, where):
        return self.answer("GET", where, None, "application/json").decode()

    def answer(self, method, where, body, kind):
        text = None if body is None else json.dumps(body)
        for attempt in (1, 2):  # a kept connection may have been closed meanwhile
            kept = getattr(self.local, "kept", None) or self.connection()
            self.local.kept = kept
            try:
                kept.request(method, where, text, self.headers | {"Content-Type": kind})
                answer = kept.getresponse()
                data = answer.read()
                break
            except (http.client.HTTPException, OSError):
                kept.close()
                self.local.kept = None
                if attempt == 2:
                    raise
        if answer.status >= 300:
            raise Failed(answer.status, f"{method} {where}: {data[:400].decode(errors='replace')}")
        return data

    def get(self, *where):
        return self.request("GET", path(*where))

    def create(self, item, *where):
        return self.request("POST", path(*where), item)

    def merge(self, patch, *where):
        return self.request("PATCH", path(*where), patch, "application/merge-patch+json")

    def apply(self, item, manager, *where):
        query = f"?fieldManager={manager}&force=true"
        return self.request("PATCH", path(*where) + query, item, "application/apply-patch+yaml")

    def token(self, namespace, account, audience=None, bound=None, seconds=86_400):
        """A token of a service account, as the kubelet would ask for it."""
        spec = {"expirationSeconds": seconds}
        if audience:
            spec["audiences"] = [audience]
        if bound:
            kind, name, uid = bound
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}
        made = self.create({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
                           "serviceaccounts", namespace, account, "token")
        return made["status"]["token"]

    def events(self, where, version):
        """A watch's events until the server ends it."""
        line = self.connection(timeout=120)
        try:
            line.request("GET", f"{where}{'&' if '?' in where else '?'}watch=1&resourceVersion={version}", headers=self.headers)
            answer = line.getresponse()
            if answer.status != 200:
                raise Failed(answer.status, where)
            while text := answer.readline():
                yield json.loads(text)
        finally:
            line.close()


class Cache(threading.Thread):
    """What `keep` leaves of each object of a kind, by (namespace, name); `told(key, old, new)` on each change."""

    def __init__(self, api, kind, keep, told=lambda key, old, new: None, selector=None):
        super().__init__(daemon=True, name=f"cache of {kind}")
        self.api, self.keep, self.told = api, keep, told
        self.where = path(kind) + (f"?labelSelector={urllib.parse.quote(selector)}" if selector else "")
        self.items, self.ready = {}, threading.Event()

    def run(self):
        while True:
            try:
                self.follow()
            except (Failed, OSError, http.client.HTTPException, ValueError):
                time.sleep(1)

    def follow(self):
        listed = self.api.request("GET", self.where)
        new = {key_of(item): self.keep(item) for item in listed["items"]}
        for key in [*new, *(key for key in list(self.items) if key not in new)]:
            self.set(key, new.get(key))
        self.ready.set()
        for event in self.api.events(self.where, listed["metadata"]["resourceVersion"]):
            item = event["object"]
            if event["type"] == "ERROR":
                return
            self.set(key_of(item), None if event["type"] == "DELETED" else self.keep(item))

    def set(self, key, new):
        old = self.items.get(key)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        if new != old:
            self.told(key, old, new)

    def values(self):
        return list(self.items.values())


def key_of(item):
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def condition(item, name):
    found = [c for c in (item.get("status") or {}).get("conditions", []) if c["type"] == name]
    return found[0] if found else {}
