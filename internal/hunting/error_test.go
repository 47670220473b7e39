package hunting

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestErrorsOfGraphGetTheOldShape(t *testing.T) {
	const inner = `,"innerError":{"date":"2026-11-21T12:00:00","request-id":"inner-id","client-request-id":"c"}`
	for _, c := range []struct {
		name   string
		status int
		id     string
		body   string
		want   string
	}{
		{"a bad query", 400, "head-id", `{"error":{"code":"BadRequest","message":"'where' operator: Failed to resolve table or column expression named 'X'. Fix semantic errors in your query."` + inner + `}}`,
			`{"error":{"code":"BadRequest","message":"'where' operator: Failed to resolve table or column expression named 'X'. Fix semantic errors in your query.","target":"head-id"}}`},
		{"a result that is too large", 400, "", `{"error":{"code":"badRequest","message":"Query execution has exceeded the allowed result size. Optimize your query by limiting the number of results and try again"` + inner + `}}`,
			`{"error":{"code":"BadRequest","message":"Query execution has exceeded the allowed result size. Optimize your query by limiting the number of results and try again","target":"inner-id"}}`},
		{"the other spelling of the inner error", 400, "", `{"error":{"code":"invalidRange","message":"m","innererror":{"request-id":"inner-id"}}}`, `{"error":{"code":"InvalidRange","message":"m","target":"inner-id"}}`},
		{"a dead token", 401, "i", `{"error":{"code":"InvalidAuthenticationToken","message":"Access token has expired."}}`, `{"error":{"code":"Unauthorized","message":"Access token has expired.","target":"i"}}`},
		{"no permission", 403, "i", `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges"}}`, `{"error":{"code":"Forbidden","message":"Insufficient privileges","target":"i"}}`},
		{"no such path", 404, "i", `{"error":{"code":"itemNotFound","message":"m"}}`, `{"error":{"code":"NotFound","message":"m","target":"i"}}`},
		{"a body that is too large", 413, "i", ``, `{"error":{"code":"RequestEntityTooLarge","message":"Microsoft Graph answered 413 Request Entity Too Large to the query and gave no reason.","target":"i"}}`},
		{"a quota, as the page about throttling has it", 429, "i", `{"error":{"code":"TooManyRequests","innerError":{"code":"429","date":"2020-08-18T12:51:51","message":"Please retry after","request-id":"r","status":"429"},"message":"Please retry again later."}}`,
			`{"error":{"code":"TooManyRequests","message":"Please retry again later.","target":"i"}}`},
		{"an unknown error without words, as people reported it", 500, "", `{"error":{"code":"UnknownError","message":""` + inner + `}}`,
			`{"error":{"code":"InternalServerError","message":"Microsoft Graph answered 500 Internal Server Error to the query and gave no reason.","target":"inner-id"}}`},
		{"the inner error's words", 503, "i", `{"error":{"code":"","message":"","innerError":{"message":"busy"}}}`, `{"error":{"code":"ServiceUnavailable","message":"busy","target":"i"}}`},
		{"HTML", 502, "i", `<html>Bad gateway</html>`, `{"error":{"code":"BadGateway","message":"Microsoft Graph answered 502 Bad Gateway to the query and gave no reason.","target":"i"}}`},
		{"nothing", 503, "", ``, `{"error":{"code":"ServiceUnavailable","message":"Microsoft Graph answered 503 Service Unavailable to the query and gave no reason.","target":""}}`},
		{"half of it", 500, "i", `{"error":{"code":"x","message":"y`, `{"error":{"code":"InternalServerError","message":"Microsoft Graph answered 500 Internal Server Error to the query and gave no reason.","target":"i"}}`},
		{"members of other kinds", 400, "i", `{"error":{"code":7,"message":["a"]}}`, `{"error":{"code":"BadRequest","message":"Microsoft Graph answered 400 Bad Request to the query and gave no reason.","target":"i"}}`},
		{"an inner error of another kind", 400, "i", `{"error":{"code":"BadRequest","message":"the reason","innerError":"x"}}`, `{"error":{"code":"BadRequest","message":"the reason","target":"i"}}`},
		{"an inner error whose code is another kind", 400, "", `{"error":{"code":"BadRequest","message":"the reason","innerError":{"code":1,"request-id":"inner-id"},"details":[]}}`, `{"error":{"code":"BadRequest","message":"the reason","target":"inner-id"}}`},
		{"a code of another kind", 429, "i", `{"error":{"code":{"a":1},"message":"the reason"}}`, `{"error":{"code":"TooManyRequests","message":"the reason","target":"i"}}`},
		{"words alone", 400, "i", `{"error":"the reason"}`, `{"error":{"code":"BadRequest","message":"the reason","target":"i"}}`},
		{"a code in other letters", 400, "i", `{"error":{"code":"école","message":"m"}}`, `{"error":{"code":"école","message":"m","target":"i"}}`},
		{"a byte order mark", 400, "i", "\xef\xbb\xbf" + `{"error":{"code":"BadRequest","message":"the reason"}}`, `{"error":{"code":"BadRequest","message":"the reason","target":"i"}}`},
		{"a list", 400, "i", `[{"error":{"code":"x","message":"y"}}]`, `{"error":{"code":"BadRequest","message":"Microsoft Graph answered 400 Bad Request to the query and gave no reason.","target":"i"}}`},
		{"null", 400, "i", `{"error":null}`, `{"error":{"code":"BadRequest","message":"Microsoft Graph answered 400 Bad Request to the query and gave no reason.","target":"i"}}`},
		{"a status that nobody knows", 599, "i", `{}`, `{"error":{"code":"Error","message":"Microsoft Graph answered 599 to the query and gave no reason.","target":"i"}}`},
		{"words with < and &", 400, "i", `{"error":{"code":"BadRequest","message":"a < b & c"}}`, `{"error":{"code":"BadRequest","message":"a < b & c","target":"i"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(Error(c.status, c.id, []byte(c.body))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func FuzzError(f *testing.F) {
	f.Add(400, `{"error":{"code":"é","message":"m"}}`)
	f.Add(500, strings.Repeat("[", 100))
	f.Fuzz(func(t *testing.T, status int, body string) {
		var old struct {
			Error map[string]string
		}
		if err := json.Unmarshal(Error(status, "id", []byte(body)), &old); err != nil || len(old.Error) != 3 || old.Error["code"] == "" || old.Error["message"] == "" || old.Error["target"] != "id" {
			t.Errorf("%d %q: %v, %v", status, body, old, err)
		}
	})
}
