"""Uploads a script to the library, runs it on a machine, and reads what it said;
then takes it out of the library again."""

import time

import requests

from tool import API, PATIENCE, checked, done, log_in, settings

SCRIPT = "look around.ps1"
CONTENT = b"\xef\xbb\xbfGet-Process\r\n--not a boundary--\r\n" * 20000

session = log_in()
uploaded = checked(
    session.post(
        f"{API}/api/libraryfiles",
        files={"file": (SCRIPT, CONTENT, "application/octet-stream")},
        data={"Description": "looks around", "OverrideIfExists": "true"},
        timeout=PATIENCE,
    )
)
started = session.post(
    f"{API}/API/machines/{settings['machine']}/runliveresponse",
    json={
        "Commands": [{"type": "RunScript", "params": [{"key": "ScriptName", "value": SCRIPT}]}],
        "Comment": "of a script",
    },
    timeout=PATIENCE,
)
action = checked(started)
while action["status"] in ("Pending", "InProgress"):
    time.sleep(0.2)
    action = checked(session.get(f"{API}/api/machineactions/{action['id']}", timeout=PATIENCE))
link = checked(
    session.get(f"{API}/api/machineactions/{action['id']}/GetLiveResponseResultDownloadLink(index=0)", timeout=PATIENCE)
)["value"]
# The documentation says: from storage, and without the token.
said = requests.get(link, timeout=PATIENCE).json()
deleted = session.delete(f"{API}/api/libraryfiles/{SCRIPT}", timeout=PATIENCE)
done(sha256=uploaded["sha256"], status=action["status"], started=started.status_code, link=link, said=said["script_name"], deleted=deleted.status_code)
