"""The audit rebuilds a lease from the chain alone, and one changed amount is found."""

import http.server
import json
import threading
import unittest
import urllib.request

from lib import RPC, audit, get


class Tampered(http.server.BaseHTTPRequestHandler):
    """Passes calls on; adds one to the last byte of the last word of each log of the named event."""

    topic = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = urllib.request.Request(RPC, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            data = json.loads(answer.read())
        for one in data if isinstance(data, list) else [data]:
            if isinstance(one.get("result"), list):
                for log in one["result"]:
                    if isinstance(log, dict) and log.get("topics", [None])[0] == self.topic:
                        word = int(log["data"][-64:], 16)
                        log["data"] = log["data"][:-64] + f"{word + 1:064x}"
        out = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *_):
        pass


class Audit(unittest.TestCase):
    def setUp(self):
        self.order = get("trainingtask", "digits", "demo")["status"]["orderId"]

    def test_sums_balance(self):
        report = json.loads(audit(self.order).stdout)
        self.assertEqual(report["findings"], [])
        totals = {name: int(value) for name, value in report["totals"].items()}
        self.assertEqual(totals["funded"], totals["paid"] + totals["refunded"] + totals["burned"] - totals["bondLost"])
        self.assertEqual([step["event"] for step in report["transitions"]][-1], "Accepted")

    def test_one_amount_off_by_one_fails(self):
        report = json.loads(audit(self.order).stdout)
        self.assertEqual(report["findings"], [])
        accepted = report["transitions"][-1]["transaction"]
        receipt = json.loads(urllib.request.urlopen(urllib.request.Request(
            RPC, headers={"Content-Type": "application/json"},
            data=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_getTransactionReceipt", "params": [accepted]}).encode(),
        ), timeout=10).read())["result"]
        Tampered.topic = next(log["topics"][0] for log in receipt["logs"] if log["topics"][1] == self.order)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tampered)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            done = audit(self.order, rpc=f"http://127.0.0.1:{server.server_port}", check=False)
        finally:
            server.shutdown()
            server.server_close()
        self.assertEqual(done.returncode, 1)
        self.assertIn("do not add up", done.stderr)


if __name__ == "__main__":
    unittest.main()
