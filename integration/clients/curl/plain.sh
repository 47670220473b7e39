#!/bin/sh
# What an analyst types who knows nothing but the proxy's URL: no login, no header.
#
# Prints NAME=VALUE lines.
set -eu

curl "$PROXY/api/alerts" >alerts.json
echo "alerts=$(grep -o '"id":"da[^"]*"' alerts.json | grep -c .)"

next() { sed -n 's/.*"@odata.nextLink":"\([^"]*\)".*/\1/p' "$1"; }
pages=1
while url=$(next alerts.json) && [ -n "$url" ]; do
	curl "$url" >alerts.json
	pages=$((pages + 1))
done
echo "pages=$pages"

curl --compressed "$PROXY//api/machines/?\$filter=startswith(computerDnsName,'none;such')" >machines.json
echo "filtered=$(grep -c '"value":\[\]' machines.json)"
curl --http2 -o alerts.json -w 'http2=%{http_code} %{http_version}\n' "$PROXY/api/alerts?\$top=1"
curl -I "$PROXY/api/alerts?\$top=1" | sed -n '1s/^/head=/p' | tr -d '\r'
curl -d '{"Query":"DeviceInfo | take 1"}' -H 'Content-Type: application/json' "$PROXY/api/advancedqueries/run" >rows.json
echo "hunt=$(grep -o '"DeviceName":' rows.json | grep -c .)"
curl -X POST -o error.json -w 'refused=%{http_code}' "$PROXY/api/machines/$MACHINE/isolate"
echo " $(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' error.json)"
curl -u someone:password-of-the-tool -H 'X-Api-Key: key-of-the-tool' -o alerts.json -w 'credentials=%{http_code}\n' "$PROXY/api/alerts?\$top=1&client_secret=$CLIENT_SECRET"
curl -H "Authorization: $CLIENT_SECRET" -o alerts.json -w 'bare=%{http_code}\n' "$PROXY/api/alerts?\$top=1"
