"""Collects an investigation package and downloads it; the connection ends in the
middle, and the rest is fetched with Range."""

import io
import time
import zipfile

import requests

from tool import API, PATIENCE, checked, done, log_in, settings

session = log_in()
action = checked(
    session.post(
        f"{API}/api/machines/{settings['machine']}/collectInvestigationPackage",
        json={"Comment": "of a script"},
        timeout=PATIENCE,
    )
)
while action["status"] in ("Pending", "InProgress"):
    time.sleep(0.2)
    action = checked(session.get(f"{API}/api/machineactions/{action['id']}", timeout=PATIENCE))
link = checked(session.get(f"{API}/api/machineactions/{action['id']}/GetPackageUri", timeout=PATIENCE))["value"]

with requests.get(link, stream=True, timeout=PATIENCE) as response:
    response.raise_for_status()
    tag, whole = response.headers["ETag"], int(response.headers["Content-Length"])
    name = response.headers["Content-Disposition"]
    data = next(response.iter_content(100))  # and the connection is closed
rest = requests.get(link, headers={"Range": f"bytes={len(data)}-", "If-Range": tag}, timeout=PATIENCE)
data += rest.content
with zipfile.ZipFile(io.BytesIO(data)) as z:
    broken = z.testzip()
    files = z.namelist()
done(link=link, parts=rest.status_code, whole=whole, got=len(data), name=name, broken=broken, files=files)
