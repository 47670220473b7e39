package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"defender-proxy/internal/token"
)

// loginWire carries the requests of x/oauth2, and mends what that leaves open:
// its device authorization request knows no context, does not close the body,
// and dereferences nil where the answer is "null".
//
// It is used by one goroutine.
type loginWire struct {
	ctx  context.Context
	next http.RoundTripper
	// away says that the last request brought no answer, or one that Entra ID
	// cannot answer now. A request that was ended does not count.
	away bool
}

// maxLoginAnswer bounds an answer. A token with two hundred groups takes about
// 10 KiB.
const maxLoginAnswer = 256 << 10

var (
	errLoginTooLong  = errors.New("the answer is too long")
	errLoginNotEntra = errors.New("the answer is not what an Entra ID sends")
)

// RoundTrip implements http.RoundTripper. The answer's body is read whole.
func (w *loginWire) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	if ctx.Done() == nil {
		ctx = w.ctx
	}
	// http.Client's own timeout would wait for the close that x/oauth2 forgets.
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	asked := r.Context()
	resp, err := w.next.RoundTrip(r.WithContext(ctx))
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxLoginAnswer+1))
		resp.Body.Close()
	}
	if asked.Err() == nil {
		w.away = err != nil || cannotNow(resp)
	}
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxLoginAnswer:
		return nil, errLoginTooLong
	case resp.StatusCode < 300 && !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")):
		return nil, errLoginNotEntra
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// cannotNow reports whether the same request may be answered later.
func cannotNow(r *http.Response) bool {
	return r != nil && (r.StatusCode >= 500 || r.StatusCode == http.StatusTooManyRequests)
}

// rejectsClient reports whether Entra ID does not accept the application's own
// proof (RFC 6749, section 5.2), before it looks at anything else.
func rejectsClient(err error) bool {
	re, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && re.ErrorCode == "invalid_client"
}

func aadstsOf(err error) int {
	if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return token.AADSTS(re.ErrorDescription)
	}
	return 0
}

// denial is Entra's error, of whichever endpoint.
type denial struct {
	code, description string
	status            int
}

func (d *denial) Error() string { return "entra id answered " + d.code }

// errNoAnswer says that nobody signed in in time.
var errNoAnswer = errors.New("nobody signed in in time")

// explain says why a sign-in failed, with what to do. The result is a
// *token.Fault.
func (s *signIn) explain(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*token.Fault](err); ok {
		return f
	}
	out, away := errors.AsType[*outage](err)
	if away {
		err = out.error
	}
	if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		d := &denial{code: re.ErrorCode, description: re.ErrorDescription}
		if re.Response != nil {
			d.status = re.Response.StatusCode
		}
		return s.denied(d)
	}
	if d, ok := errors.AsType[*denial](err); ok {
		return s.denied(d)
	}
	switch {
	case away: // the time is over, and that is not why
	case errors.Is(err, errNoAnswer) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		f := storeFault("Nobody signed in in time.", "Start the sign-in again.")
		if s.strayed {
			f.Sentence = "Nobody signed in in time; an answer came that belonged to another sign-in."
			f.Remedy = "Start the sign-in again, and open the page that it then shows."
		}
		return f
	case ctx.Err() != nil:
		return &token.Fault{Kind: token.Stopped, Sentence: "The sign-in was interrupted.", Remedy: "Start it again."}
	case errors.Is(err, errLoginTooLong) || errors.Is(err, errLoginNotEntra):
		return &token.Fault{Kind: token.BadAnswer, Sentence: "What answered at " + s.Authority + " is not Entra ID: " + err.Error() + ".", Remedy: "Check the authority, and that no egress proxy answers for it."}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // the URL is named below; that of the redirect holds the code
		return &token.Fault{Kind: token.Unreachable, Sentence: "Entra ID at " + s.Authority + " cannot be reached: " + s.quiet(err.Error()) + ".", Remedy: "Check network, egress.proxy and egress.ca_file."}
	}
	return &token.Fault{Kind: token.BadAnswer, Sentence: "Entra ID's answer cannot be used: " + s.quiet(err.Error()) + ".", Remedy: "Check the authority, and start the sign-in again."}
}

// quiet makes somebody else's words fit for an error: one line, bounded, without
// what must not be shown.
func (s *signIn) quiet(text string) string {
	for _, secret := range s.quieting {
		if secret != "" {
			text = strings.NewReplacer(secret, hiddenToken, url.QueryEscape(secret), hiddenToken).Replace(text)
		}
	}
	// Every JWT begins so.
	if i := strings.Index(text, "eyJ"); i >= 0 {
		text = text[:i] + hiddenToken
	}
	const most = 240
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strconv.Quote(text)
}

// denied puts Entra's error into words.
func (s *signIn) denied(d *denial) *token.Fault {
	f := &token.Fault{Kind: token.Rejected}
	if d.status >= 500 || d.status == http.StatusTooManyRequests || d.code == "temporarily_unavailable" || d.code == "server_error" {
		f.Kind = token.Unavailable
	}
	switch d.code {
	case "authorization_declined":
		f.Sentence, f.Remedy = "The person declined the sign-in.", "Start it again, and accept."
		return f
	case "expired_token":
		f.Sentence, f.Remedy = "The code expired before anybody signed in.", "Start the sign-in again."
		return f
	case "":
		f.Sentence = fmt.Sprintf("Entra ID answered %d without a reason.", d.status)
		f.Remedy = "Check the authority, and that no egress proxy answers for it; then start the sign-in again."
		return f
	}
	// What follows the sentence are ids of the trace, and the time.
	words := d.description
	for _, mark := range []string{"\r", "\n", " Trace ID:"} {
		words, _, _ = strings.Cut(words, mark)
	}
	f.Sentence = "Entra ID refused the sign-in: " + s.quiet(d.code) + "."
	if words != "" {
		f.Sentence = "Entra ID refused the sign-in: " + s.quiet(words) + "."
	}
	f.Remedy = s.remedy(d)
	return f
}

// remedy says what to do about an error. Codes are those of "Microsoft Entra
// authentication and authorization error codes"
// (learn.microsoft.com/entra/identity-platform/reference-error-codes), which also
// names the page that explains each.
func (s *signIn) remedy(d *denial) string {
	consent := "An administrator of the tenant consents at " + strings.TrimRight(s.Authority, "/") + "/" + string(s.Tenant) + "/adminconsent?client_id=" + url.QueryEscape(s.ClientID)
	code := token.AADSTS(d.description)
	switch code {
	case 7000218:
		return "For an application without a secret: App registrations, Authentication, set \"Allow public client flows\" to Yes. For one with a secret or certificate, configure it beside the user."
	case 700025:
		return "The application is a public client: take client_secret and certificate out of the credential, and leave the user."
	case 7000215, 7000222, 700027:
		return "Correct the application's own credential, which stands beside the user in the configuration."
	case 65001, 65004, 90094, 650051:
		return consent
	case 700016, 500011, 650052:
		return "Check client_id, tenant and audience. If they are right: " + strings.ToLower(consent[:1]) + consent[1:]
	case 50011:
		return "Add http://localhost as a redirect URI of the platform \"Mobile and desktop applications\": App registrations, Authentication."
	case 50020:
		return "Sign in with an account of this tenant, or invite the account as a guest."
	case 53003:
		return "An administrator looks at the sign-in log for the Conditional Access policy that refuses it. Device code is often blocked: try the flow authorization_code."
	}
	switch d.code {
	case "access_denied":
		return "Sign in again and accept what the application asks for. " + consent
	case "consent_required", "interaction_required":
		return consent
	case "temporarily_unavailable", "server_error":
		return "Wait a little and start the sign-in again."
	}
	if code != 0 {
		return fmt.Sprintf("Start the sign-in again; https://login.microsoftonline.com/error?code=%d explains the code.", code)
	}
	return "Start the sign-in again."
}
