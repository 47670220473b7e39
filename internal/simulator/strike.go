package simulator

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// regionFault carries out the faults that replace an answer, and prepares those
// that only change one. It tells true when nothing is left to do.
func (s *Simulator) regionFault(w http.ResponseWriter, r *http.Request, f Fault) bool {
	if s.commonFault(w, r, f) {
		return true
	}
	switch f.Kind {
	case FaultGarbage:
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!DOCTYPE html><html><head><title>Service</title></head><body><h1>Something else lives here</h1></body></html>")
	case FaultBadJSON:
		w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
		io.WriteString(w, `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[{"id":"da6`)
	case FaultUpgrade:
		if r.ProtoMajor == 2 { // knows no upgrade (RFC 9113, section 8.6), so that it is no more than odd
			w.WriteHeader(http.StatusSwitchingProtocols)
			return false
		}
		s.upgrade(w, r)
	case FaultEndless:
		s.endless(w, r)
	case FaultUnauthorized:
		writeProblem(w, unauthorized("The access token was refused."))
	case FaultThrottle:
		if f.RetryAfter == "" {
			f.RetryAfter = "1"
		}
		w.Header().Set("Retry-After", f.RetryAfter)
		writeProblem(w, problemf(http.StatusTooManyRequests, "TooManyRequests", "API calls quota exceeded! You can send requests again in %s seconds.", f.RetryAfter))
	case FaultFlood1xx:
		w.Header().Set("Link", "</style.css>; rel=preload")
		for range 1000 {
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		return false
	case FaultHugeHeaders:
		for i := range 512 {
			w.Header().Set(fmt.Sprintf("X-Padding-%03d", i), strings.Repeat("p", 4096))
		}
		return false
	case FaultCookies:
		h := w.Header()
		h.Add("Set-Cookie", "session=of-microsoft; Path=/; Secure; HttpOnly")
		h.Set("Alt-Svc", `h3=":443"; ma=86400`)
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("WWW-Authenticate", `Basic realm="upstream"`)
		return false
	default:
		return false
	}
	return true
}

// commonFault carries out what regions and Entra ID have in common.
func (s *Simulator) commonFault(w http.ResponseWriter, r *http.Request, f Fault) bool {
	switch f.Kind {
	case FaultReset:
		resetCaller(w, r)
	case FaultHang:
		select {
		case <-r.Context().Done():
		case <-s.stopped:
		}
		panic(http.ErrAbortHandler)
	case FaultDelay:
		return !s.pause(r, f.Delay)
	case FaultStatus:
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		writeProblem(w, problemf(f.Status, statusCode(f.Status), "The simulator was told to answer %d.", f.Status))
	case FaultRedirect:
		w.Header().Set("Location", f.Location)
		w.WriteHeader(http.StatusFound)
	default:
		return false
	}
	return true
}

// statusCode is Microsoft's code for a status.
func statusCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "BadRequest"
	case http.StatusUnauthorized:
		return "Unauthorized"
	case http.StatusForbidden:
		return "Forbidden"
	case http.StatusNotFound:
		return "NotFound"
	case http.StatusGone:
		return "Gone"
	case http.StatusTooManyRequests:
		return "TooManyRequests"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	case http.StatusBadGateway:
		return "BadGateway"
	case http.StatusGatewayTimeout:
		return "GatewayTimeout"
	}
	return "InternalServerError"
}

// entraFault carries out a fault of the token endpoint. Those that only change
// a token are left to it.
func (s *Simulator) entraFault(w http.ResponseWriter, r *http.Request, f Fault) bool {
	if s.commonFault(w, r, f) {
		return true
	}
	switch f.Kind {
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!DOCTYPE html><html><head><title>Sign in to your account</title></head><body>Sign in</body></html>")
	case FaultEmpty:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusOK)
	case FaultAADSTS:
		refuse(f.Code).write(w, r, s.now())
	case FaultHuge:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"padding":"`)
		block := bytes.Repeat([]byte("x"), 64<<10)
		for range 256 {
			if _, err := w.Write(block); err != nil {
				return true
			}
		}
		io.WriteString(w, `","access_token":"never-reached"}`)
	default:
		return false
	}
	return true
}

// upgrade switches protocols unasked and keeps the connection for what comes.
func (s *Simulator) upgrade(w http.ResponseWriter, r *http.Request) {
	c, release, err := hijack(w, r)
	if err != nil {
		return
	}
	defer release(false)
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	// Whoever believes it and talks on is listened to until it leaves; closing
	// the gate closes the connection under the read.
	io.Copy(io.Discard, c)
}

// endless writes rows until the caller leaves.
func (s *Simulator) endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; odata.metadata=minimal")
	io.WriteString(w, `{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[{"id":"0"}`)
	row := []byte(strings.Repeat(`,{"id":"da637472900382838869_1364969609","title":"again"}`, 64))
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.stopped:
			return
		default:
		}
		if _, err := w.Write(row); err != nil {
			return
		}
	}
}

// capture keeps an answer instead of sending it, up to maxCapture bytes; what
// is longer is cut off.
type capture struct {
	header http.Header
	status int
	body   bytes.Buffer
	cut    bool
}

const maxCapture = 16 << 20

func newCapture(h http.Header) *capture { return &capture{header: h.Clone(), status: http.StatusOK} }

func (c *capture) Header() http.Header  { return c.header }
func (c *capture) WriteHeader(code int) { c.status = code }

func (c *capture) Write(p []byte) (int, error) {
	if room := maxCapture - c.body.Len(); len(p) > room {
		c.body.Write(p[:room])
		c.cut = true
		return len(p), nil
	}
	return c.body.Write(p)
}

// truncate sends the first half of a captured answer and ends the connection.
// Short answers carry a Content-Length that is not kept, long ones are chunked
// and lack the last chunk: the ways in which net/http frames answers.
func (c *capture) truncate(w http.ResponseWriter) {
	c.copyHeader(w)
	if c.body.Len() < 2048 {
		w.Header().Set("Content-Length", strconv.Itoa(c.body.Len()))
	}
	w.WriteHeader(c.status)
	w.Write(c.body.Bytes()[:c.body.Len()/2])
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// slowly sends a captured answer in sixteen pieces.
func (c *capture) slowly(s *Simulator, w http.ResponseWriter, r *http.Request, gap time.Duration) {
	if gap == 0 {
		gap = 50 * time.Millisecond
	}
	c.copyHeader(w)
	w.WriteHeader(c.status)
	piece := c.body.Len()/16 + 1
	for c.body.Len() > 0 {
		if _, err := w.Write(c.body.Next(piece)); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		if !s.pause(r, gap) {
			panic(http.ErrAbortHandler)
		}
	}
	if c.cut {
		panic(http.ErrAbortHandler)
	}
}

func (c *capture) copyHeader(w http.ResponseWriter) {
	for name, values := range c.header {
		w.Header()[name] = values
	}
}
