"""Collects alerts as log shippers do: page after page, and where it is in a file, so
that it goes on there after it was stopped. Stops by itself after some pages."""

import os

from tool import API, PATIENCE, by_json, checked, done, log_in, settings

state = settings["state"]
session = log_in(by_json)
if os.path.exists(state):
    with open(state, encoding="utf-8") as f:
        url = f.read()
else:
    url = f"{API}/api/alerts?$filter=alertCreationTime ge 2020-01-01T00:00:00Z&$expand=evidence"

ids, pages = [], 0
while url and pages < settings["pages"]:
    page = checked(session.get(url, timeout=PATIENCE))
    ids += [alert["id"] for alert in page["value"]]
    pages += 1
    url = page.get("@odata.nextLink")
    with open(state, "w", encoding="utf-8") as f:
        f.write(url or "")
done(ids=ids, pages=pages, more=bool(url))
