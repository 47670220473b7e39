// Package hunting turns what Microsoft Graph answers to an advanced hunting query
// into what the two older APIs answered, for callers that know only those.
//
//	POST /v1.0/security/runHuntingQuery   {"@odata.context": …, "schema": [{"name", "type"}], "results": [{…}]}
//	POST /api/advancedqueries/run         {"Schema": [{"Name", "Type"}], "Results": [{…}]}
//	POST /api/advancedhunting/run         the same, and Stats
//
// A Reader does it on the stream: rows go out as they come, whatever their number.
// Error does it for answers that are errors. Package proxy calls both; where the
// query goes, and whether it may, is its business.
//
// Sources: learn.microsoft.com/graph/api/security-security-runhuntingquery and
// …/graph/api/resources/security-huntingqueryresults, whose samples print the
// members of schema as name and type, older ones as Name and Type;
// learn.microsoft.com/defender-endpoint/api/run-advanced-query-api and
// …/defender-xdr/api-advanced-hunting for the older answers (read 2026-11). That
// rows hold annotations such as "ProcessId@odata.type": "#Int64", before the member
// or behind it, is what OData 4.01 JSON, section 4.6.3, says of members whose type
// cannot be told from their form, and what was seen (OData/AspNetCoreOData,
// HuntingQueryResults). No page tells what errors look like; those that people
// reported have Graph's usual form.
package hunting
