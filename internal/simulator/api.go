package simulator

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// call is a request that may be carried out: routed, authenticated, permitted.
type call struct {
	sim     *Simulator
	r       *http.Request
	op      *operation
	values  []string // of the placeholders, in the order of the path
	who     principal
	fleet   *fleet
	options options
	count   bool // the path ended in /$count
	now     time.Time
	// oddLinks spoils next links (FaultOddLinks).
	oddLinks bool
}

// id is the value of the path's first placeholder.
func (c *call) id() string { return c.values[0] }

// argument is the value of a function's argument, by its name in the template.
func (c *call) argument(name string) string {
	return c.values[slices.Index(c.op.placeholders, strings.ToLower(name))]
}

// handler carries out an operation. A *problem among its errors is answered as
// it is, any other error with 500.
type handler func(c *call) (reply, error)

// reply is an answer before it is written.
type reply struct {
	status   int // 200 when 0
	location string
	body     any    // JSON, unless nil
	text     string // text/plain, for $count
	counted  bool   // text is the answer to $count
	// stream writes JSON that is too long to hold.
	stream func(w io.Writer) error
}

// handlers has one for each operation of the catalog, by id.
func handlers() map[string]handler {
	all := map[string]handler{}
	for _, part := range []map[string]handler{
		alertHandlers(), machineHandlers(), actionHandlers(), entityHandlers(), indicatorHandlers(), libraryHandlers(),
		vulnerabilityHandlers(), scanHandlers(), incidentHandlers(), graphHandlers(), exportHandlers(), huntingHandlers(),
	} {
		for id, h := range part {
			all[id] = h
		}
	}
	return all
}

// regionHandler answers for one region, for all three services.
func (s *Simulator) regionHandler(region *region) http.Handler {
	return s.recorded("api", region.name, func(w http.ResponseWriter, r *http.Request, rec *Request) {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		w = answerTo(w, path)
		// Judged at arrival: neither the delay nor a fault hides a token that was
		// dead when it was sent.
		c, reason := s.present(r, rec)
		if !s.pause(r, region.faults.pause()) {
			return
		}
		fault, struck := region.faults.take(path)
		if struck && s.regionFault(w, r, fault) {
			return
		}
		switch fault.Kind {
		case FaultTruncate:
			kept := newCapture(w.Header())
			s.api(kept, r, rec, path, fault, c, reason)
			kept.truncate(w)
		case FaultSlowBody:
			kept := newCapture(w.Header())
			s.api(kept, r, rec, path, fault, c, reason)
			kept.slowly(s, w, r, fault.Delay)
		default:
			s.api(w, r, rec, path, fault, c, reason)
		}
	})
}

// api judges a request as Microsoft does and answers it: token, path, method,
// audience, permission, limits, query options.
func (s *Simulator) api(w http.ResponseWriter, r *http.Request, rec *Request, path string, fault Fault, token claims, reason Refusal) {
	w = answerTo(w, path) // a captured one too
	stampHeaders(w, r)
	who, p := s.authenticate(rec, token, reason)
	if p != nil {
		writeProblem(w, p)
		return
	}
	if fault.Kind == FaultClaimsChallenge && s.challenge(w, rec, token, fault) {
		return
	}
	if m := s.mischief.api(); m != nil {
		m.strikeAPI(w, r)
		return
	}
	found, ok := s.router.find(path)
	if !ok {
		writeProblem(w, problemf(http.StatusNotFound, "ResourceNotFound", "No HTTP resource was found that matches the request."))
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	op := found.methods[method]
	if op == nil {
		var allowed []string
		for m := range found.methods {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeProblem(w, problemf(http.StatusMethodNotAllowed, "MethodNotAllowed", "The requested resource does not support http method '%s'.", r.Method))
		return
	}
	s.ring.update(rec, func(q *Request) { q.Tenant, q.App, q.Operation = who.tenant.id, who.claims.AppID, op.ID })
	if status := int(s.retired.Load()); status != 0 && strings.HasPrefix(op.ID, "hunting.") {
		writeProblem(w, problemf(status, statusCode(status), "This API is retired. Use the Microsoft Graph security API."))
		return
	}
	if who.service != string(op.Service) {
		writeProblem(w, s.wrongAudience(rec))
		return
	}
	if p := who.authorize(op); p != nil {
		writeProblem(w, p)
		return
	}
	if p := s.quotas.spend(op, who, s.now()); p != nil {
		writeProblem(w, p)
		return
	}
	opts, p := readOptions(r.URL.RawQuery)
	if p != nil {
		writeProblem(w, p)
		return
	}
	c := &call{
		sim: s, r: r, op: op, values: found.values, who: who, fleet: who.tenant.fleet(), options: opts,
		count: found.count, now: s.now(), oddLinks: fault.Kind == FaultOddLinks,
	}
	out, err := op.handle(c)
	if err == nil && c.count && !out.counted {
		err = notFound("$count", "of this resource")
	}
	if err != nil {
		if !errors.As(err, &p) {
			s.cfg.Log.Error().Err(err).Str("operation", op.ID).Msg("simulator: an operation failed")
			p = problemf(http.StatusInternalServerError, "InternalServerError", "Something went wrong.")
		}
		writeProblem(w, p)
		return
	}
	out.write(w, r)
}

// stampHeaders sets what every answer of the API carries.
func stampHeaders(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	id := uuid.NewString()
	h.Set("request-id", id)
	h.Set("x-ms-request-id", id)
	if client := r.Header.Get("client-request-id"); client != "" {
		h.Set("client-request-id", client)
	}
	h.Set("OData-Version", "4.0")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
}

// write sends the reply, compressed when the caller accepts it.
func (out reply) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if out.location != "" {
		h.Set("Location", out.location)
	}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	if out.body == nil && out.stream == nil && out.text == "" {
		w.WriteHeader(out.status)
		return
	}
	h.Set("Content-Type", "application/json; odata.metadata=minimal; odata.streaming=true; charset=utf-8")
	if out.text != "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	zip := acceptsGzip(r)
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	w.WriteHeader(out.status)
	if r.Method == http.MethodHead {
		return
	}
	var dst io.Writer = w
	if zip {
		z := gzip.NewWriter(w)
		defer z.Close()
		dst = z
	}
	var err error
	switch {
	case out.text != "":
		_, err = io.WriteString(dst, out.text)
	case out.stream != nil:
		err = out.stream(dst)
	default:
		e := json.NewEncoder(dst)
		e.SetEscapeHTML(false)
		err = e.Encode(out.body)
	}
	if err != nil {
		// The status is out: only a broken connection can tell the caller.
		panic(http.ErrAbortHandler)
	}
}

// acceptsGzip reads Accept-Encoding as far as the simulator needs it: gzip
// named without the weight 0.
func acceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for _, one := range strings.Split(v, ",") {
			name, weight, _ := strings.Cut(strings.TrimSpace(one), ";")
			weight = strings.ReplaceAll(weight, " ", "")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") && !isZeroWeight(weight) {
				return true
			}
		}
	}
	return false
}

func isZeroWeight(w string) bool {
	w, ok := strings.CutPrefix(strings.ToLower(w), "q=")
	return ok && strings.Trim(w, "0.") == ""
}
