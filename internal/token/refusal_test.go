package token

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEntrasCodesBecomeASentenceAndARemedy(t *testing.T) {
	for _, c := range []struct {
		name             string
		status           int
		code, text       string
		kind             Kind
		sentence, remedy string // whole
	}{
		{
			"a wrong secret", 401, "7000215", "Invalid client secret provided.", Rejected,
			"Entra ID does not know the client secret of application " + clientID + " (AADSTS7000215).",
			"Set the secret's value, not its ID, without spaces or line ends around it; or create a new one under App registrations, Certificates & secrets.",
		},
		{
			"missing consent, with the link", 400, "65001", "The user or administrator has not consented.", Rejected,
			"Nobody has consented to application " + clientID + " in tenant " + contosoID + " (AADSTS65001).",
			"An administrator of the tenant consents at https://login.example.com/" + contosoID + "/adminconsent?client_id=" + clientID,
		},
		{
			"a wrong tenant", 400, "90002", "Tenant not found.", Rejected,
			"There is no tenant " + contosoID + " in this cloud (AADSTS90002).",
			"Check the tenant id, and that the tenant's cloud (commercial, gcc, gcc-high, dod) is the configured one.",
		},
		{
			"a transient code", 400, "90033", "A transient error has occurred.", Unavailable,
			"Entra ID's directory is unavailable for a while (AADSTS90033).",
			"Wait; the proxy tries again.",
		},
		{
			"a code of the table under a 503", 503, "50001", "x", Unavailable,
			"The API " + mde + " does not exist or is disabled in tenant " + contosoID + " (AADSTS50001).",
			"Check the audience for the tenant's cloud, and that the tenant has the Defender product.",
		},
		{
			"a code that nobody knows is quoted without the trace", 400, "99999999", "Something new\x1b[31m.", Rejected,
			`Entra ID refuses the token: "AADSTS99999999: Something new\x1b[31m.".`,
			"Microsoft explains the code at https://login.microsoftonline.com/error?code=99999999",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
					return refusal(c.status, c.code, c.text), nil
				}}
				err := mustFail(t, running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde), c.kind)
				if err.Sentence != c.sentence || err.Remedy != c.remedy {
					t.Errorf("got\n%s\n%s\nwant\n%s\n%s", err.Sentence, err.Remedy, c.sentence, c.remedy)
				}
				if fmt.Sprint(err.AADSTS) != c.code || err.Status != c.status {
					t.Errorf("AADSTS %d, status %d", err.AADSTS, err.Status)
				}
				if got, want := err.Error(), "token: tenant contoso, audience "+mde+": "+c.sentence+" "+c.remedy; got != want {
					t.Errorf("Error gives %q, want %q", got, want)
				}
			})
		})
	}
}

func TestEveryRowOfTheTableIsASentenceAndARemedyWithoutHoles(t *testing.T) {
	for code, a := range adviceByCode {
		sentence, remedy := a.words(contoso(), mde, -7*time.Minute)
		for _, s := range []string{sentence, remedy} {
			if s == "" || strings.ContainsAny(s, "{}") || strings.Contains(s, "  ") || strings.TrimSpace(s) != s {
				t.Errorf("%d: %q", code, s)
			}
		}
		if !strings.HasSuffix(sentence, ".") {
			t.Errorf("%d: %q is no sentence", code, sentence)
		}
		if !strings.HasSuffix(remedy, ".") && !strings.HasSuffix(remedy, "client_id="+clientID) {
			t.Errorf("%d: %q neither ends a sentence nor in a link", code, remedy)
		}
	}
}

func TestARemedyTellsOfAWrongClockWhereItMatters(t *testing.T) {
	for _, c := range []struct {
		code string
		off  time.Duration
		want string
	}{
		{"700024", -12 * time.Minute, "Set this machine's clock (NTP). This machine's clock is 12m0s behind Entra ID's."},
		{"700024", 12 * time.Minute, "Set this machine's clock (NTP). This machine's clock is 12m0s ahead of Entra ID's."},
		{"700024", 0, "Set this machine's clock (NTP)."},
	} {
		inBubble(t, func(t *testing.T) {
			f := &entra{respond: func(n int, _ map[string]string) (*http.Response, error) {
				// Half a second past a whole one, which the Date header drops. A notable
				// difference makes a second request.
				time.Sleep(time.Duration(n) * 500 * time.Millisecond)
				return refusal(401, c.code, "Client assertion is not within its valid time range."), nil
			}}
			e := New(Options{Transport: f, Log: quiet})
			e.now = func() instant {
				n := readClocks()
				n.wall += int64(c.off)
				return n
			}
			start(t, e)
			if err := mustFail(t, e.Source(contoso(), mde), Rejected); err.Remedy != c.want {
				t.Errorf("got %q, want %q", err.Remedy, c.want)
			}
		})
	}
}

func TestRefusalsWithoutACode(t *testing.T) {
	for _, c := range []struct {
		name string
		resp func() (*http.Response, error)
		kind Kind
		want string
	}{
		{"429", func() (*http.Response, error) { return answer(429, map[string]any{}), nil }, Unavailable, "answered 429"},
		{"503 with a body that is no JSON", func() (*http.Response, error) { return answer(503, "busy"), nil }, Unavailable, "answered 503"},
		{"an OAuth error", func() (*http.Response, error) {
			return answer(400, map[string]any{"error": "invalid_client", "error_description": "no"}), nil
		}, Rejected, `answered 400 with the error "invalid_client": "no".`},
		{"an OAuth error under a 200", func() (*http.Response, error) {
			return answer(200, map[string]any{"error": "invalid_client"}), nil
		}, Rejected, "answered 200 with the error"},
		{"no connection", func() (*http.Response, error) { return nil, errors.New("connection refused") }, Unreachable, `cannot be reached: "connection refused".`},
		{"401 without a body", func() (*http.Response, error) { return answer(401, nil), nil }, BadAnswer, "answered 401"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{respond: func(int, map[string]string) (*http.Response, error) { return c.resp() }}
				err := mustFail(t, running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde), c.kind)
				if !strings.Contains(err.Sentence, c.want) || err.Remedy == "" {
					t.Errorf("got %q, %q; want %q", err.Sentence, err.Remedy, c.want)
				}
			})
		})
	}
}

func TestAForeignTextIsCutBetweenCharacters(t *testing.T) {
	got := quote(strings.Repeat("é", 400), nil)
	if want := `"` + strings.Repeat("é", maxQuote/2) + `…"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
