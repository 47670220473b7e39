#!/bin/sh
# The lines of Microsoft's pages, to the letter but for the values that a reader puts
# in and the line breaks. Where a page shows a request as HTTP, the line is what its
# readers make of it. .curlrc says where the names are and which CA to trust.
#
# Prints NAME=VALUE lines.
set -eu

# learn.microsoft.com/defender-endpoint/api/exposed-apis-create-app-webapp, "Use curl"
curl -i -X POST -H "Content-Type:application/x-www-form-urlencoded" -d "grant_type=client_credentials" -d "client_id=$CLIENT_ID" -d "scope=https://securitycenter.onmicrosoft.com/windowsatpservice/.default" -d "client_secret=$CLIENT_SECRET" "https://login.microsoftonline.com/$TENANT_ID/oauth2/v2.0/token" -k >v2.txt
token=$(sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' v2.txt)
echo "v2=$(head -n 1 v2.txt | tr -d '\r')"

# The older login, as the samples for PowerShell and Python on these pages have it:
# four values and login.windows.net.
older=$(curl -d "resource=https://api.securitycenter.microsoft.com" -d "client_id=$CLIENT_ID" -d "client_secret=$CLIENT_SECRET" -d grant_type=client_credentials "https://login.windows.net/$TENANT_ID/oauth2/token" | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
echo "parts=$(echo "$older" | tr . '\n' | grep -c .)"

# .../get-alerts
curl -H "Authorization: Bearer $older" "https://api.securitycenter.microsoft.com/api/alerts?\$top=3&\$expand=evidence" >alerts.json
echo "alerts=$(grep -o '"id":"da[^"]*"' alerts.json | cut -d '"' -f 4 | tr '\n' ' ')"

# .../exposed-apis-odata-samples: single quotes, spaces written as plus, brackets
curl -g -H "Authorization: Bearer $token" "https://api.security.microsoft.com/api/machines?\$filter=id+eq+'$MACHINE'&\$select=id" >machines.json
echo "machines=$(grep -o '"id":"[^"]*"' machines.json | cut -d '"' -f 4 | tr '\n' ' ')"
curl -G --data-urlencode "\$filter=id eq '$MACHINE'" -H "Authorization: Bearer $token" https://api.securitycenter.microsoft.com/api/machines >machines.json
echo "encoded=$(grep -o '"id":"[^"]*"' machines.json | cut -d '"' -f 4 | tr '\n' ' ')"

# .../run-advanced-query-api, and the same of Defender XDR and of Microsoft Graph
printf '{ "Query": "DeviceInfo\\n| where DeviceName != \\"a;b\\"\\n| take 2" }\n' >query.json
for url in https://api.securitycenter.microsoft.com/api/advancedqueries/run https://api.security.microsoft.com/api/advancedhunting/run https://graph.microsoft.com/v1.0/security/runHuntingQuery; do
	curl -X POST -H "Authorization: Bearer $token" -H "Content-Type: application/json" -d @query.json "$url" >rows.json
	echo "hunt=$(grep -io '"schema"' rows.json) $(grep -io '"results"' rows.json) $(grep -o '"DeviceName":' rows.json | grep -c .)"
done

# .../upload-library, and the file's way out
printf 'Get-Process\r\n' >mdatp1.png
curl -X POST https://api.security.microsoft.com/api/libraryfiles -H "Authorization: Bearer $token" -F "file=@mdatp1.png" -F "ParametersDescription=test" -F "HasParameters=true" -F "OverrideIfExists=true" -F "Description=test description" >library.json
echo "upload=$(grep -o '"description":"[^"]*"' library.json)"
echo "delete=$(curl -i -X DELETE -H "Authorization: Bearer $token" https://api.security.microsoft.com/api/libraryfiles/mdatp1.png | head -n 1 | tr -d '\r')"

# .../get-package-sas-uri: the link leads to storage, and takes no token
curl -X POST -H "Authorization: Bearer $token" -H "Content-Type: application/json" -d '{"Comment": "Collect forensics due to alert 1234"}' "https://api.securitycenter.microsoft.com/api/machines/$MACHINE/collectInvestigationPackage" >action.json
action=$(sed -n 's/.*"id":"\([^"]*\)".*/\1/p' action.json)
for _ in $(seq 100); do
	curl -H "Authorization: Bearer $token" "https://api.securitycenter.microsoft.com/api/machineactions/$action" >action.json
	grep -q '"status":"Succeeded"' action.json && break
	sleep 0.2
done
link=$(curl -H "Authorization: Bearer $token" "https://api.securitycenter.microsoft.com/api/machineactions/$action/getPackageUri" | sed -n 's/.*"value":"\([^"]*\)".*/\1/p')
echo "link=$link"
curl -r 0-99 -o package.zip "$link"
curl -C - -o package.zip "$link"
curl -o whole.zip "$link"
cmp package.zip whole.zip && echo "package=$(wc -c <whole.zip | tr -d ' ')"
