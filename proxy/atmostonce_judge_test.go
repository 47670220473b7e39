package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"defender-proxy/regions"
)

// judge holds what callers were told and what was written down against what the
// regions saw, and returns what is wrong.
func (s *schedule) judge() (wrong []string) {
	for _, c := range s.calls {
		v := &verdict{schedule: s, call: c, seen: s.world.witness.of(c.id)}
		v.intents, v.requests = s.world.records.of(c.id)
		if m := errorDetails.FindStringSubmatch(c.header.Get("Proxy-Status")); m != nil {
			v.code = m[1]
		}
		for _, seen := range v.seen {
			if seen.mangled {
				v.bad("of its body of %d bytes arrived %d, as if that were all: %v", c.size, seen.bytes, seen)
			}
			if seen.status != http.StatusUnauthorized {
				v.counted = append(v.counted, seen)
			}
		}
		v.atMostOnce()
		v.told()
		v.refused()
		v.written()
		v.inTime()
		for _, w := range v.wrong {
			wrong = append(wrong, c.id+": "+w)
		}
	}
	return append(wrong, s.judgeAll()...)
}

var errorDetails = regexp.MustCompile(`error=[a-z_]+; details="(\w+)"`)

// verdict is about one call.
type verdict struct {
	*schedule
	call              *call
	code              string     // of the refusal; empty where there is none
	seen              []sighting // by the regions
	counted           []sighting // of them, but for those that were answered with 401
	intents, requests []auditLine
	wrong             []string
}

func (v *verdict) bad(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// waited reports whether the next arrival of a request came when the patience was
// over that this answer asked for.
func (s *sighting) waited(next sighting, most time.Duration) bool {
	if s.status != http.StatusTooManyRequests && s.status != http.StatusServiceUnavailable {
		return false
	}
	asked, err := time.ParseDuration(s.again + "s")
	return err == nil && asked <= most && next.at.Sub(s.told) >= max(asked, minWait)
}

// atMostOnce checks how often the request arrived. What changes nothing may reach
// three regions, and one of them again for a new token or when it was patient.
func (v *verdict) atMostOnce() {
	renewed := 0
	for i, seen := range v.seen {
		if seen.status == http.StatusUnauthorized && i+1 < len(v.seen) {
			renewed++
		}
	}
	if renewed > 1 {
		v.bad("another token was tried %d times: %v", renewed, v.seen)
	}
	if v.call.kind.write {
		if len(v.counted) > 1 {
			v.bad("the write arrived %d times: %v", len(v.counted), v.counted)
		}
		return
	}
	waits, sent := 0, 0
	for i, seen := range v.counted {
		switch last := i+1 == len(v.counted); {
		case !last && seen.waited(v.counted[i+1], v.maxWait) && waits < maxWaits:
			waits++
		case !last && seen.status == http.StatusTooManyRequests:
			v.bad("it was sent again after a 429 without the wait: %v", v.counted)
		default:
			sent++
		}
	}
	if !v.call.kind.hunt {
		// When a kept connection dies without an answer, net/http takes the next one
		// by itself.
		sent -= v.world.attempts.again[v.call.id]
	}
	if sent > 3 || v.call.kind.hunt && !v.hunting && sent > 1 {
		v.bad("it arrived %d times beside %d waits: %v", sent, waits, v.counted)
	}
}

// early reports whether the exchange was over before the caller's body had come
// whole.
func (c *call) early(requests []auditLine) bool {
	return c.size > 0 && len(requests) == 1 &&
		(c.uploaded.IsZero() || c.uploaded.After(requests[0].at) || requests[0].BytesIn < c.size)
}

// told checks the truth of what the caller was told.
func (v *verdict) told() {
	c := v.call
	switch {
	case c.status == 0 && c.leaves == 0 && c.early(v.requests) && errors.Is(c.err, syscall.ECONNRESET):
		// Some of its body was never read. The reset that this brings takes the
		// answer along, on many systems.
	case c.status == 0 && c.leaves == 0:
		v.bad("the caller stayed and was told nothing: %v", c.err)
	case c.status == 0:
	case v.code == "" && c.status == http.StatusRequestTimeout && slices.ContainsFunc(v.world.witness.strays, func(n regions.Name) bool {
		return strings.Contains(c.header.Get("Proxy-Status"), "next-hop="+string(n))
	}):
	case v.code == "":
		if len(v.seen) == 0 {
			v.bad("an answer was passed on that no region gave")
			return
		}
		last := v.seen[len(v.seen)-1]
		if hop := "next-hop=" + string(last.region); last.status != c.status || !strings.Contains(c.header.Get("Proxy-Status"), hop) {
			v.bad("was told %d with %q; the last region it reached was %s, which answered %d", c.status, c.header.Get("Proxy-Status"), last.region, last.status)
		}
	case v.code == string(RegionUnavailable):
		maybe := strings.Contains(c.body, "may have been carried out") || strings.Contains(c.body, "may have run")
		lost := slices.ContainsFunc(v.counted, func(s sighting) bool { return s.status == 0 })
		if !maybe && (c.kind.write && len(v.counted) > 0 || c.kind.hunt && !v.hunting && lost) {
			v.bad("was told that no region answered, and %v", v.counted)
		}
		if !c.kind.write && !c.kind.hunt && maybe {
			v.bad("a read was told that it may have been carried out")
		}
	case v.code == string(InvalidAnswer):
		if len(v.seen) == 0 || !v.seen[len(v.seen)-1].begun {
			v.bad("was told of an answer, and no region gave one: %v", v.seen)
		}
	case v.code == string(TokenUnavailable), v.code == string(AuditUnavailable):
		if c.kind.write && len(v.counted) > 0 {
			v.bad("was told %s, and it arrived: %v", v.code, v.counted)
		}
	case v.code == string(RequestTimeout) && c.slow(v.world.proxy.Limits.BodyIdle):
	default:
		v.bad("was told %d %s %s", c.status, v.code, c.body)
	}
}

// refused checks that a refusal is one in form, and that nobody is asked to repeat a
// write that may have been carried out.
func (v *verdict) refused() {
	c := v.call
	if v.code == "" {
		return
	}
	for _, name := range []string{"Content-Encoding", "Etag"} {
		if c.header.Get(name) != "" {
			v.bad("the refusal %s has the header %s of Microsoft's answer", v.code, name)
		}
	}
	if c.err != nil && c.leaves == 0 {
		v.bad("the refusal %s breaks off: %v", v.code, c.err)
	}
	if !c.kind.write || len(v.counted) == 0 {
		return
	}
	if again := c.header.Get("Retry-After"); again != "" || strings.Contains(c.body, "ry again") || strings.Contains(c.body, "end it again") {
		v.bad("the write arrived, and its caller is asked to repeat it: %s, Retry-After %q", c.body, again)
	}
}

// written checks the audit.
func (v *verdict) written() {
	c := v.call
	if len(v.requests) == 0 && c.leaves > 0 && len(v.seen) == 0 && len(v.intents) == 0 {
		return // it left before its request had come
	}
	if len(v.requests) != 1 {
		v.bad("%d records of the request, want 1", len(v.requests))
		return
	}
	rec := v.requests[0]
	switch {
	case !c.kind.write:
		if len(v.intents) > 0 {
			v.bad("it is no write and has an intent")
		}
	case len(v.intents) > 1:
		v.bad("%d intents", len(v.intents))
	case len(v.seen) > 0 || rec.Attempts > 0:
		if len(v.intents) == 0 || v.intents[0].lost {
			v.bad("the write was sent without an intent: %v", v.intents)
		} else if len(v.seen) > 0 && v.intents[0].at.After(v.seen[0].at) {
			v.bad("the intent was written at %v, behind the write", v.intents[0].at)
		}
	}
	if c.kind.write && rec.Attempts < len(v.seen) {
		v.bad("the record has %d attempts, and %d arrived", rec.Attempts, len(v.seen))
	}
	if rec.Code == string(Internal) {
		v.bad("the proxy failed: %s", rec.Reason)
	}
	if c.status == 0 {
		return
	}
	if rec.Status != c.status {
		v.bad("the caller was told %d, and the record has %d", c.status, rec.Status)
	}
	if v.code == "" && !strings.Contains(c.header.Get("Proxy-Status"), "next-hop="+rec.Region) {
		v.bad("the caller was told %q, and the record has %q", c.header.Get("Proxy-Status"), rec.Region)
	}
	switch {
	case c.err == nil && rec.Code != v.code:
		v.bad("the caller was told the code %q, and the record has %q", v.code, rec.Code)
	case c.err != nil && c.leaves == 0 && rec.Code != string(InvalidAnswer):
		v.bad("the caller's answer broke off, and the record has the code %q", rec.Code)
	}
}

// inTime checks that the exchange ended within its bounds: Limits.patience from
// when the body had come, and FirstByteTimeout for each pause within the answer.
func (v *verdict) inTime() {
	c, l := v.call, v.world.proxy.Limits
	const slack = 2 * time.Second // for a token and for the ways
	came := c.uploaded
	if c.size == 0 {
		came = c.began
	}
	if came.IsZero() || came.After(c.ended) { // it never came whole, within its own bounds
		came = c.began.Add(l.BodyIdle + time.Duration(c.size)*time.Second/minRate)
	}
	bound := l.Patience() + slack
	if c.err != nil || v.code == string(InvalidAnswer) {
		bound += l.FirstByteTimeout // the answer paused
	}
	if took := c.ended.Sub(came); took > bound {
		v.bad("it took %v from when its body had come, more than %v", took, bound)
	}
	if c.leaves > 0 && c.status == 0 && len(v.requests) == 1 {
		bound := slack
		if c.size > maxKept {
			// While the region takes no more of a stream, nobody reads from the
			// caller, and its leaving shows only when the attempt ends.
			bound += l.Patience()
		} else if len(v.seen) == 0 {
			bound += l.ConnectTimeout // nor while the first probes are awaited
		}
		if late := v.requests[0].at.Sub(c.ended); late > bound {
			v.bad("the exchange went on for %v when the caller had left", late)
		}
	}
}

// judgeAll judges what is nobody's in particular.
func (s *schedule) judgeAll() (wrong []string) {
	if s.allow != nil {
		for _, r := range s.world.regions {
			if r.name == "eu" && r.count > 0 {
				wrong = append(wrong, fmt.Sprintf("%d connections to a region that is not allowed", r.count))
			}
		}
	}
	// Where a connection ended within the first words, nobody can tell whose they
	// were; but no write may have arrived beside those that were counted.
	parts, most := 0, 0
	for _, seen := range s.world.witness.of("") {
		if !strings.HasPrefix(seen.words, "G") && !strings.HasPrefix(seen.words, "H") {
			parts++
		}
	}
	repeats := 0
	for _, c := range s.calls {
		seen := s.world.witness.of(c.id)
		switch {
		case c.kind.write:
			most += 1 - min(len(slices.DeleteFunc(slices.Clone(seen), func(s sighting) bool { return s.status == http.StatusUnauthorized })), 1)
		case c.kind.hunt:
			most += 1 + maxWaits + 3
		}
		for i := range seen {
			if i > 0 && seen[i-1].status != http.StatusUnauthorized && !seen[i-1].waited(seen[i], s.maxWait) {
				repeats++
			}
		}
		repeats -= s.world.attempts.again[c.id]
	}
	if parts > most {
		wrong = append(wrong, fmt.Sprintf("%d writes arrived in part, and only %d were not counted: %v", parts, most, s.world.witness.of("")))
	}
	if n := 10 + len(s.calls)/5 + int(time.Since(s.world.witness.start)/time.Second); repeats > n {
		wrong = append(wrong, fmt.Sprintf("%d repeats, the budget has %d", repeats, n))
	}
	if log := s.world.log.String(); strings.Contains(log, "panic") {
		wrong = append(wrong, "the log: "+log)
	}
	return wrong
}
