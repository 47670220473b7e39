"""Reads incidents with $top and $skip, as the documentation says, until a page is
not full."""

from tool import API, PATIENCE, by_query, checked, done, log_in

session = log_in(by_query)
TOP = 10
ids = []
while True:
    page = checked(session.get(f"{API}/api/incidents", params={"$top": TOP, "$skip": len(ids)}, timeout=PATIENCE))
    ids += [str(incident["incidentId"]) for incident in page["value"]]
    if len(page["value"]) < TOP:
        break
done(ids=ids)
