"""Downloads all files of an export: gzip of JSON lines."""

import gzip
import json

import requests

from tool import API, PATIENCE, checked, done, log_in

session = log_in()
export = checked(session.get(f"{API}/api/machines/SoftwareInventoryExport", timeout=PATIENCE))
rows = 0
for link in export["exportFiles"]:
    response = requests.get(link, timeout=PATIENCE)
    response.raise_for_status()
    rows += len([json.loads(line) for line in gzip.decompress(response.content).splitlines()])
done(links=export["exportFiles"], rows=rows)
