package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// shown is every way in which a value gets into a text.
func shown(v any) string {
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	fmt.Fprintln(&b, []any{v}, map[string]any{"v": v}, struct{ V any }{v}, struct{ v any }{v})
	if j, err := json.Marshal(v); err == nil {
		b.Write(j)
	}
	log := zerolog.New(&b)
	log.Info().Interface("v", v).Any("a", v).Send()
	if err, ok := v.(error); ok {
		log.Err(err).Send()
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	return b.String()
}

// leaks looks for the secrets in the form they have and in others that the
// package or a log makes of them.
func leaks(t *testing.T, where, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		for _, form := range []string{s, url.QueryEscape(s), fmt.Sprintf("%x", s), fmt.Sprintf("%X", s)} {
			if form != "" && strings.Contains(text, form) {
				t.Errorf("%s shows a secret or a token", where)
			}
		}
	}
}

func TestNoPrintedValueShowsTheTokenOrTheSecret(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var log lockedBuffer
		e := running(t, Options{Transport: &entra{}, Log: zerolog.New(&log).Level(zerolog.TraceLevel)})
		s := e.Source(contoso(), mde)
		b := mustBearer(t, s)
		value := strings.TrimPrefix(b.Authorization(), "Bearer ")
		parts := strings.Split(value, ".")
		secrets := []string{canary, value, parts[0], parts[1], parts[2]}

		type holder struct{ b Bearer }
		synctest.Wait() // the log is written after the waiters have left
		for name, v := range map[string]any{
			"*Bearer": b, "Bearer": *b, "a Bearer in an unexported field": holder{*b}, "a pointer to that": &holder{*b},
			"[]*Bearer": []*Bearer{b}, "Claims": b.Claims(), "State": s.State(), "*Source": s, "Account": contoso(), "zero Bearer": Bearer{},
		} {
			leaks(t, name, shown(v), secrets...)
		}
		leaks(t, "the log", log.String(), secrets...)
		if !strings.Contains(log.String(), "got a token") {
			t.Error("nothing was logged: the test shows nothing")
		}
		if got := fmt.Sprintf("%v %s %#v %d", b, *b, b, b); got != "[redacted] [redacted] [redacted] [redacted]" {
			t.Errorf("a Bearer prints as %s", got)
		}
		if j, err := json.Marshal(map[string]any{"b": b, "nil": (*Bearer)(nil)}); err != nil || string(j) != `{"b":"[redacted]","nil":null}` {
			t.Errorf("a Bearer encodes as %s, %v", j, err)
		}
	})
}

// An Entra that repeats the secret or a token in what it says, and a transport
// and a file that do.
func TestNoErrorShowsASecretThatSomebodyRepeats(t *testing.T) {
	value := signed(claimsFor(contoso(), mde, time.Hour))
	escaped := url.QueryEscape(canary)
	for name, respond := range map[string]func() (*http.Response, error){
		"in a description with a code": func() (*http.Response, error) {
			return refusal(400, "99999999", "wrong: "+canary+" and "+escaped+" and "+value), nil
		},
		"in a description without": func() (*http.Response, error) {
			return answer(400, map[string]any{"error": canary, "error_description": "client_secret=" + escaped + "&t=" + value}), nil
		},
		"in a body that is no JSON": func() (*http.Response, error) {
			r := answer(500, canary+value)
			r.Header.Set("Content-Type", "text/plain")
			return r, nil
		},
		"in a JSON body of the wrong types": func() (*http.Response, error) {
			return answer(200, map[string]any{"expires_in": canary, "access_token": value}), nil
		},
		"in the content type": func() (*http.Response, error) {
			r := answer(404, "x")
			r.Header.Set("Content-Type", "text/"+value)
			return r, nil
		},
		"in the token type": func() (*http.Response, error) {
			a := granted(contoso(), mde, time.Hour)
			a["token_type"] = canary
			return answer(200, a), nil
		},
		"in the claims": func() (*http.Response, error) {
			c := claimsFor(contoso(), canary, time.Hour)
			return answer(200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": signed(c)}), nil
		},
		"in an audience that is cut": func() (*http.Response, error) {
			c := claimsFor(contoso(), strings.Repeat("x", maxQuote-len(canary)/2)+canary, time.Hour)
			return answer(200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": signed(c)}), nil
		},
		"in an application that needs quotes": func() (*http.Response, error) {
			c := claimsFor(contoso(), mde, time.Hour)
			c["appid"] = `"\` + canary
			return answer(200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": signed(c)}), nil
		},
		"in the issuer": func() (*http.Response, error) {
			c := claimsFor(contoso(), mde, time.Hour)
			c["iss"] = "https://" + canary + "/"
			return answer(200, map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": signed(c)}), nil
		},
		"in the error of the transport": func() (*http.Response, error) {
			return nil, errors.New("sending client_secret=" + escaped + "&x=" + value + canary)
		},
		"in a panic": func() (*http.Response, error) { panic(canary + value) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var log lockedBuffer
				f := &entra{respond: func(int, map[string]string) (*http.Response, error) { return respond() }}
				e := running(t, Options{Transport: f, Log: zerolog.New(&log).Level(zerolog.TraceLevel)})
				s := e.Source(contoso(), mde)
				_, err := s.Bearer(t.Context())
				if err == nil {
					t.Fatal("a token was given")
				}
				synctest.Wait() // the log is written after the waiters have left
				parts := strings.Split(value, ".")
				leaks(t, "the error", shown(err), canary, value, parts[0], parts[1], parts[2])
				leaks(t, "the state", shown(s.State()), canary, value, parts[0], parts[1], parts[2])
				leaks(t, "the log", log.String(), canary, value, parts[0], parts[1], parts[2])
				if log.String() == "" {
					t.Error("nothing was logged: the test shows nothing")
				}
			})
		})
	}
}
