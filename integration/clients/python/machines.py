"""Looks machines up in the ways that scripts have: with a slash before the query,
with a raw semicolon in a filter, by address, and under /API/."""

from tool import API, PATIENCE, checked, done, log_in, settings

session = log_in()


def found(path):
    return [m["id"] for m in checked(session.get(API + path, timeout=PATIENCE))["value"]]


machine = checked(session.get(f"{API}/API/machines/{settings['machine']}?", timeout=PATIENCE))
name, address, seen = machine["computerDnsName"], machine["lastIpAddress"], machine["lastSeen"]
done(
    by_name=found(f"/api/machines/?$filter=computerDnsName eq '{name}'"),
    by_odd_name=found("/api/machines?$filter=computerDnsName eq 'none;such' or computerDnsName eq '{}'".format(name)),
    by_no_name=found("/api/machines?$filter=startswith(computerDnsName,'none;such')"),
    by_address=found(f"/api/machines/findbyip(ip='{address}',timestamp={seen[:19]}Z)"),
    all=len(found("//api/machines?$top=10000")),
)
