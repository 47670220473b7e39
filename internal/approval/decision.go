package approval

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

const (
	// MaxComment bounds what an approver says, in bytes.
	MaxComment = 500
	// MaxDecision bounds the body that it comes in.
	MaxDecision = 4 << 10
)

// CommentOf reads what an approver says out of the body of a decision: nothing,
// {"comment": "…"}, or a form's comment=…. Its errors are for the approver and
// begin a sentence behind "the".
func CommentOf(contentType string, body []byte) (string, error) {
	comment := ""
	switch kind, _, _ := strings.Cut(contentType, ";"); {
	case len(body) == 0:
	case strings.EqualFold(strings.TrimSpace(kind), "application/json"):
		var said struct {
			Comment string `json:"comment"`
		}
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.DisallowUnknownFields()
		if err := d.Decode(&said); err != nil {
			return "", errors.New(`body is not of the form {"comment": "…"}`)
		}
		if _, err := d.Token(); err != io.EOF {
			return "", errors.New("body does not end behind its JSON")
		}
		comment = said.Comment
	default: // a form, whatever it calls itself
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return "", errors.New("body is neither JSON nor a form with comment=…")
		}
		comment = form.Get("comment")
	}
	if comment = strings.TrimSpace(comment); len(comment) > MaxComment {
		return "", fmt.Errorf("comment has %d bytes; at most %d are taken", len(comment), MaxComment)
	}
	return comment, nil
}
