package hunting

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// MaxError is how much of an error's body is looked at, in bytes. A longer one has
// no message that a person reads.
const MaxError = 64 << 10

// Error gives an answer of Graph's that is an error the shape of the older APIs
// ({"error":{"code","message","target"}}). body is the plain body, whatever it is,
// and id what Graph calls the request in its headers; both may be empty. The code is
// one that the older APIs document where Graph's means the same, so that callers
// find what they look for; the message is Graph's.
func Error(status int, id string, body []byte) []byte {
	e := read(body)
	var old struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Target  string `json:"target"`
		} `json:"error"`
	}
	old.Error.Code = code(status, e.Code)
	old.Error.Message = cmp.Or(e.Message, e.InnerError.Message)
	if old.Error.Message == "" {
		old.Error.Message = strings.TrimSpace(fmt.Sprintf("Microsoft Graph answered %d %s", status, http.StatusText(status))) + " to the query and gave no reason."
	}
	old.Error.Target = cmp.Or(id, e.InnerError.RequestID)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(old) // strings have a form
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// graphError is an error of Graph's.
type graphError struct {
	Code, Message string
	InnerError    struct { // Graph's pages print innererror too
		Code, Message string
		RequestID     string `json:"request-id"`
	}
}

// read reads what can be read of an error. A member of another kind than usual, which
// encoding/json passes over, takes nothing from the others; half a document says
// nothing.
func read(body []byte) (e graphError) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	var document struct{ Error json.RawMessage }
	if !json.Valid(body) || json.Unmarshal(body, &document) != nil {
		return e
	}
	if len(document.Error) > 0 && document.Error[0] == '"' {
		_ = json.Unmarshal(document.Error, &e.Message)
	} else {
		_ = json.Unmarshal(document.Error, &e) // what it can
	}
	return e
}

// codes are those of learn.microsoft.com/defender-endpoint/api/common-errors, by
// status where Graph's own says less.
var codes = map[int]string{
	http.StatusBadRequest: "BadRequest", http.StatusUnauthorized: "Unauthorized", http.StatusForbidden: "Forbidden",
	http.StatusNotFound: "NotFound", http.StatusTooManyRequests: "TooManyRequests", http.StatusInternalServerError: "InternalServerError",
}

// code gives the old code for one of Graph's.
func code(status int, graph string) string {
	known, ok := codes[status]
	switch {
	case ok && status != http.StatusBadRequest:
		return known
	case graph == "" || strings.EqualFold(graph, "UnknownError") || strings.EqualFold(graph, "generalException"):
		return cmp.Or(known, strings.ReplaceAll(http.StatusText(status), " ", ""), "Error")
	}
	if c := graph[0]; 'a' <= c && c <= 'z' {
		return string(c-'a'+'A') + graph[1:] // badRequest
	}
	return graph
}
