"""Hunts, without any retry: an error ends it. Then it hunts for what cannot be, and
looks for words in the error, as some playbooks do."""

from tool import API, PATIENCE, ApiError, checked, done, log_in

session = log_in()


def hunt(query):
    got = checked(session.post(f"{API}/api/advancedqueries/run", json={"Query": query}, timeout=PATIENCE))
    columns = [c["Name"] for c in got["Schema"]]
    return [[row[c] for c in columns] for row in got["Results"]]


rows = hunt("DeviceInfo | take 3 | project DeviceId, DeviceName")
try:
    hunt("DeviceInfo | frobnicate")
    error = ""
except ApiError as e:
    error = str(e)
done(ids=[row[0] for row in rows], error=error)
