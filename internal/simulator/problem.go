package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// problem is an error in the form that Microsoft's APIs answer with. The codes
// are those of "Common REST API error codes" (defender-endpoint/api/common-errors).
type problem struct {
	status  int
	code    string
	message string
	// retryAfter is in seconds, no header when 0.
	retryAfter int
	// challenge is WWW-Authenticate of a 401, that of an invalid token when
	// empty.
	challenge string
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.status, p.code, p.message) }

func problemf(status int, code, format string, args ...any) *problem {
	return &problem{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func missing(parameter string) *problem {
	return problemf(http.StatusBadRequest, "MissingRequiredParameter", "Parameter %s is missing.", parameter)
}

func invalidInput(format string, args ...any) *problem {
	return problemf(http.StatusBadRequest, "InvalidInput", format, args...)
}

func notFound(what, id string) *problem {
	return problemf(http.StatusNotFound, "ResourceNotFound", "Resource %s %s was not found.", what, id)
}

func odataProblem(format string, args ...any) *problem {
	return problemf(http.StatusBadRequest, "ODataError", format, args...)
}

// writeProblem answers with p. target is what a caller would give to support.
func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(p.retryAfter))
	}
	switch {
	case p.challenge != "":
		w.Header().Set("WWW-Authenticate", p.challenge)
	case p.status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+p.message+`"`)
	}
	var body any = map[string]string{"code": p.code, "message": p.message, "target": uuid.NewString()}
	if g, ok := w.(graphAnswer); ok {
		body = members{{"code", p.code}, {"message", p.message}, {"innerError", g.innerError()}}
	}
	w.WriteHeader(p.status)
	text, _ := marshalPlain(map[string]any{"error": body})
	w.Write(text)
}

// graphAnswer is an answer of Microsoft Graph's, whose errors have a form of their
// own (learn.microsoft.com/graph/errors).
type graphAnswer struct{ http.ResponseWriter }

// Unwrap lets http.ResponseController reach the connection.
func (g graphAnswer) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// answerTo gives the writer for an answer, by the path that is asked for.
func answerTo(w http.ResponseWriter, path string) http.ResponseWriter {
	const graph = "/v1.0/"
	if len(path) >= len(graph) && strings.EqualFold(path[:len(graph)], graph) {
		return graphAnswer{w}
	}
	return w
}

func (g graphAnswer) innerError() members {
	id := g.Header().Get("request-id")
	if id == "" {
		id = uuid.NewString()
	}
	client := g.Header().Get("client-request-id")
	if client == "" {
		client = id
	}
	return members{{"date", time.Now().UTC().Format("2006-01-02T15:04:05")}, {"request-id", id}, {"client-request-id", client}}
}

// marshalPlain is json.Marshal without the escapes meant for HTML, which
// Microsoft's services do not write.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
