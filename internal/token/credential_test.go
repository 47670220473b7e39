package token

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// proofs is a credential made of what a test says.
type proofs struct {
	give   func(Ask) ([]Proof, error)
	health Health
}

func (c proofs) Proofs(_ context.Context, ask Ask) ([]Proof, error) { return c.give(ask) }
func (c proofs) Health() Health                                     { return c.health }

func secretProof(name, value string) Proof {
	return Proof{Name: name, Form: url.Values{"client_secret": {value}}, Secrets: []string{value}}
}

func TestTheNextProofIsTriedOnlyWhenEntraRejectsTheFirstForItself(t *testing.T) {
	for _, c := range []struct {
		name     string
		first    func() *http.Response
		second   func() *http.Response
		requests int
		want     string // in the sentence; empty for a token
	}{
		{"a wrong first secret", func() *http.Response { return refusal(401, "7000215", "Invalid.") }, nil, 2, ""},
		{"an expired first secret", func() *http.Response { return refusal(401, "7000222", "Expired.") }, nil, 2, ""},
		{"a certificate that is not registered", func() *http.Response { return refusal(401, "700027", "No key.") }, nil, 2, ""},
		{"missing consent is no fault of the secret", func() *http.Response { return refusal(400, "65001", "No consent.") }, nil, 1, "Nobody has consented"},
		{"an outage is no fault of the secret", func() *http.Response { return answer(503, "down") }, nil, 1, "answered 503"},
		{"both rejected: the fault of the first is told, with the second's", func() *http.Response { return refusal(401, "7000222", "Expired.") },
			func() *http.Response { return refusal(401, "7000215", "Invalid.") }, 2, "has expired (AADSTS7000222). The next client secret does not help: Entra ID does not know the client secret"},
		{"the second meets an outage", func() *http.Response { return refusal(401, "7000222", "Expired.") },
			func() *http.Response { return answer(503, "down") }, 2, "The next client secret does not help: https://login.example.com answered 503."},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
					switch {
					case form["client_secret"] == "old":
						return c.first(), nil
					case c.second != nil:
						return c.second(), nil
					}
					return answer(200, granted(contoso(), mde, time.Hour)), nil
				}}
				rejected, accepted := 0, 0
				old, fresh := secretProof("client secret", "old"), secretProof("next client secret", "fresh")
				old.Rejected = func(int) { rejected++ }
				fresh.Granted = func(Grant) error { accepted++; return nil }
				a := contoso()
				a.Credential = proofs{give: func(Ask) ([]Proof, error) { return []Proof{old, fresh}, nil }}
				s := running(t, Options{Transport: f, Log: quiet}).Source(a, mde)
				if c.want == "" {
					mustBearer(t, s)
					synctest.Wait() // the credential hears of it once callers have the token
					if rejected != 1 || accepted != 1 {
						t.Errorf("rejected %d, granted %d; want each told once", rejected, accepted)
					}
				} else if _, err := s.Bearer(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q in it", err, c.want)
				}
				if got := f.requests.Load(); got != int64(c.requests) {
					t.Errorf("%d requests, want %d", got, c.requests)
				}
			})
		})
	}
}

func TestEachCodeThatSpeaksOfTheProofLeadsToTheNext(t *testing.T) {
	for _, code := range []string{"7000215", "7000222", "70002", "700027", "50012", "50013", "500133", "700024", "900384"} {
		inBubble(t, func(t *testing.T) {
			f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
				if form["client_secret"] == "old" {
					return refusal(401, code, "No."), nil
				}
				return answer(200, granted(contoso(), mde, time.Hour)), nil
			}}
			a := contoso()
			a.Credential = proofs{give: func(Ask) ([]Proof, error) {
				return []Proof{secretProof("client secret", "old"), secretProof("next client secret", "new")}, nil
			}}
			mustBearer(t, running(t, Options{Transport: f, Log: quiet}).Source(a, mde))
			if got := f.requests.Load(); got != 2 {
				t.Errorf("%s: %d requests, want 2", code, got)
			}
		})
	}
}

func TestWhenTheSecondProofMeetsAnOutageItsRetryAfterHolds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(_ int, form map[string]string) (*http.Response, error) {
			if form["client_secret"] == "old" {
				return refusal(401, "7000222", "Expired."), nil
			}
			r := answer(429, "busy")
			r.Header.Set("Retry-After", "120")
			return r, nil
		}}
		a := contoso()
		a.Credential = proofs{give: func(Ask) ([]Proof, error) {
			return []Proof{secretProof("client secret", "old"), secretProof("next client secret", "new")}, nil
		}}
		s := running(t, Options{Transport: f, Log: quiet}).Source(a, mde)
		if err := mustFail(t, s, Unavailable); err.RetryAfter != 2*time.Minute || err.AADSTS != 7000222 {
			t.Errorf("got %+v", err)
		}
		time.Sleep(119 * time.Second)
		synctest.Wait()
		if got := f.requests.Load(); got != 2 {
			t.Errorf("%d requests before the two minutes were over", got)
		}
	})
}

func TestAClockThatIsRightEnoughIsNotTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := &entra{respond: func(int, map[string]string) (*http.Response, error) {
			return refusal(401, "700024", "Client assertion is not within its valid time range."), nil
		}}
		mustFail(t, running(t, Options{Transport: f, Log: quiet}).Source(contoso(), mde), Rejected)
		if got := f.requests.Load(); got != 1 {
			t.Errorf("%d requests", got)
		}
	})
}

// What a credential does with an answer, or says of itself, is not in the way of
// the token.
func TestACredentialThatHangsOrPanicsAfterwardsHoldsNoTokenBack(t *testing.T) {
	for name, bad := range map[string]proofs{
		"it hangs on the answer":  {give: grantedBy(func(Grant) error { time.Sleep(time.Hour); return nil })},
		"it panics on the answer": {give: grantedBy(func(Grant) error { panic("at the disco, with " + canary) })},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a := contoso()
				a.Credential = bad
				e := running(t, Options{Transport: &entra{}, Log: quiet, Concurrency: 1})
				begun := time.Now()
				mustBearer(t, e.Source(a, mde))
				other := contoso()
				other.Cloud = "lab"
				mustBearer(t, e.Source(other, mde))
				if took := time.Since(begun); took > time.Second {
					t.Errorf("the tokens took %v", took)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
	t.Run("it panics when asked for its health", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			a := contoso()
			a.Credential = ill{}
			mustBearer(t, running(t, Options{Transport: &entra{}, Log: quiet}).Source(a, mde))
		})
	})
}

func grantedBy(f func(Grant) error) func(Ask) ([]Proof, error) {
	return func(Ask) ([]Proof, error) {
		p := secretProof("client secret", canary)
		p.Granted = f
		return []Proof{p}, nil
	}
}

type ill struct{}

func (ill) Proofs(context.Context, Ask) ([]Proof, error) {
	return []Proof{secretProof("client secret", canary)}, nil
}
func (ill) Health() Health { panic("do not ask") }

func TestACredentialWithoutAProofSendsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		give func(Ask) ([]Proof, error)
		kind Kind
		want string
	}{
		"none at all":     {func(Ask) ([]Proof, error) { return nil, nil }, Misconfigured, "gives no proof"},
		"an empty secret": {func(Ask) ([]Proof, error) { return []Proof{secretProof("client secret", "")}, nil }, Misconfigured, "The client secret is empty."},
		"a plain error":   {func(Ask) ([]Proof, error) { return nil, errors.New("the moon is full") }, Misconfigured, `"the moon is full"`},
		"a fault keeps its words and kind": {func(Ask) ([]Proof, error) {
			return nil, &Fault{Kind: Unreachable, Sentence: "The vault is not there.", Remedy: "Build one."}
		}, Unreachable, "The vault is not there."},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{}
				a := contoso()
				a.Credential = proofs{give: c.give}
				if err := mustFail(t, running(t, Options{Transport: f, Log: quiet}).Source(a, mde), c.kind); !strings.Contains(err.Sentence, c.want) {
					t.Errorf("got %q, want %q in it", err.Sentence, c.want)
				}
				if f.requests.Load() != 0 {
					t.Error("a request was sent")
				}
			})
		})
	}
}

func TestACredentialThatHangsEndsWithTheFetch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := contoso()
		a.Credential = hanging{}
		start := time.Now()
		err := mustFail(t, running(t, Options{Transport: &entra{}, Log: quiet}).Source(a, mde), Unreachable)
		if took := time.Since(start); took != 15*time.Second || !strings.Contains(err.Sentence, "within 15s") {
			t.Errorf("%v after %v", err, took)
		}
	})
}

type hanging struct{}

func (hanging) Proofs(ctx context.Context, _ Ask) ([]Proof, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (hanging) Health() Health { return Health{} }

// Clocks minutes off broke assertions (MSAL.NET #4951).
func TestAnAssertionDatedByAWrongClockIsDatedAnewByEntrasOnce(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -20 * time.Minute, "ahead": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var told []time.Duration // how far each assertion's date is from Entra's time
				a := contoso()
				a.Credential = proofs{give: func(ask Ask) ([]Proof, error) {
					told = append(told, time.Until(ask.Now))
					return []Proof{{Name: "certificate", Form: url.Values{"client_assertion": {"x"}}}}, nil
				}}
				f := &entra{respond: func(n int, _ map[string]string) (*http.Response, error) {
					if last := told[len(told)-1]; last.Abs() > 5*time.Minute {
						return refusal(401, "700024", "Client assertion is not within its valid time range."), nil
					}
					return answer(200, granted(contoso(), mde, time.Hour)), nil
				}}
				e := New(Options{Transport: f, Log: quiet})
				e.now = func() instant {
					n := readClocks()
					n.wall += int64(off)
					return n
				}
				start(t, e)
				s := e.Source(a, mde)
				mustBearer(t, s)
				if len(told) != 2 || told[0].Round(time.Second) != off || told[1].Abs() > 2*time.Second {
					t.Errorf("assertions were dated %v from Entra's time, want %v and then about 0", told, off)
				}
				mustReplace(t, s, mustBearer(t, s))
				if len(told) != 3 || told[2].Abs() > 2*time.Second {
					t.Errorf("the next fetch forgot the difference: %v", told)
				}
			})
		})
	}
}

func TestANewRefreshTokenIsHandedOverOnlyWithAnAnswerThatIsGood(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(map[string]any)
		want  []string
	}{
		{"with a new one", func(m map[string]any) { m["refresh_token"] = "rotated" }, []string{"rotated"}},
		{"without a new one", func(map[string]any) {}, []string{""}},
		{"with a token of another tenant", func(m map[string]any) {
			m["refresh_token"] = "foreign"
			m["access_token"] = signed(claimsFor(account("fabrikam", fabrikamID), mde, time.Hour))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var form map[string]string
				f := &entra{respond: func(_ int, sent map[string]string) (*http.Response, error) {
					form = sent
					m := granted(contoso(), mde, time.Hour)
					c.spoil(m)
					return answer(200, m), nil
				}}
				var got []string
				a := contoso()
				a.Credential = proofs{give: func(Ask) ([]Proof, error) {
					return []Proof{{
						Name: "sign-in", Form: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"first"}}, Secrets: []string{"first"},
						Granted: func(g Grant) error {
							got = append(got, g.RefreshToken)
							return errors.New("the disk with " + g.RefreshToken + " is full")
						},
					}}, nil
				}}
				var log lockedBuffer
				_, err := running(t, Options{Transport: f, Log: zerolog.New(&log)}).Source(a, mde).Bearer(t.Context())
				synctest.Wait()
				if (err == nil) != (c.want != nil) || strings.Join(got, ",") != strings.Join(c.want, ",") {
					t.Errorf("handed over %q with error %v, want %q", got, err, c.want)
				}
				if form["grant_type"] != "refresh_token" || form["scope"] != mde+"/.default offline_access" || form["client_id"] != clientID {
					t.Errorf("the request was %v", form)
				}
				leaks(t, "the log", log.String(), "rotated", "first")
			})
		})
	}
}

func TestWhatMakesAnotherTokenMakesAnotherSource(t *testing.T) {
	e := New(Options{Transport: &entra{}})
	for name, change := range map[string]func(*Account){
		"a user of the application":          func(a *Account) { a.Subject = "user" },
		"another cloud":                      func(a *Account) { a.Cloud = "lab" },
		"the cloud under another authority":  func(a *Account) { a.Authority = "https://lab.example" },
		"signatures that are to be verified": func(a *Account) { a.VerifySignature = true },
		"another application":                func(a *Account) { a.ClientID = "another" },
		"another tenant":                     func(a *Account) { a.Tenant = fabrikamID },
	} {
		a := contoso()
		change(&a)
		if e.Source(contoso(), mde) == e.Source(a, mde) {
			t.Errorf("%s: one source for both", name)
		}
	}
	same := contoso()
	same.Name, same.Version, same.Credential = "renamed", V1, nil
	if e.Source(contoso(), mde) != e.Source(same, mde) {
		t.Error("another name, version or credential lost the token")
	}
}

// machine is an Issuer.
type machine struct {
	issue func() (Issued, error)
}

func (machine) Proofs(context.Context, Ask) ([]Proof, error) {
	panic("an Issuer is not asked for proofs")
}
func (machine) Health() Health                               { return Health{Kind: "managed_identity"} }
func (m machine) Issue(context.Context, Ask) (Issued, error) { return m.issue() }

func TestATokenOfAMachinesIdentityIsJudgedLikeEntras(t *testing.T) {
	identity := contoso()
	identity.ClientID = "" // known to the machine alone
	good := func(life time.Duration) string { return signed(claimsFor(contoso(), mde, life)) }
	for _, c := range []struct {
		name  string
		issue func() (Issued, error)
		kind  Kind
		want  string // in the sentence; empty for a token
	}{
		{"a good one", func() (Issued, error) { return Issued{good(time.Hour), time.Hour}, nil }, 0, ""},
		{"of a day, as IMDS gives them", func() (Issued, error) { return Issued{good(24 * time.Hour), 24 * time.Hour}, nil }, 0, ""},
		{"none", func() (Issued, error) { return Issued{"", time.Hour}, nil }, BadAnswer, "no access_token"},
		{"not a JWT", func() (Issued, error) { return Issued{"x", time.Hour}, nil }, BadAnswer, "not a JWT"},
		{"without a life", func() (Issued, error) { return Issued{good(time.Hour), 0}, nil }, BadAnswer, "not above zero"},
		{"of another tenant", func() (Issued, error) {
			return Issued{signed(claimsFor(account("fabrikam", fabrikamID), mde, time.Hour)), time.Hour}, nil
		}, BadAnswer, "for tenant " + fabrikamID},
		{"for another audience", func() (Issued, error) {
			return Issued{signed(claimsFor(contoso(), "https://graph.microsoft.com", time.Hour)), time.Hour}, nil
		}, BadAnswer, "for audience"},
		{"a machine without an identity", func() (Issued, error) {
			return Issued{}, &Fault{Kind: Misconfigured, Sentence: "This machine has no identity.", Remedy: "Assign one."}
		}, Misconfigured, "This machine has no identity."},
		{"an endpoint that asks to wait", func() (Issued, error) {
			return Issued{}, &Fault{Kind: Unavailable, Sentence: "The endpoint is busy.", Remedy: "Wait.", RetryAfter: time.Hour}
		}, Unavailable, "busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				f := &entra{}
				a := identity
				a.Credential = machine{c.issue}
				s := running(t, Options{Transport: f, Log: quiet}).Source(a, mde)
				if c.want == "" {
					mustBearer(t, s)
				} else if err := mustFail(t, s, c.kind); !strings.Contains(err.Sentence, c.want) {
					t.Errorf("got %q, want %q in it", err.Sentence, c.want)
				} else if err := mustFail(t, s, c.kind); err.RetryAfter > maxRetryAfter {
					t.Errorf("it asks to wait %v", err.RetryAfter)
				}
				if f.requests.Load() != 0 {
					t.Error("Entra ID was asked")
				}
			})
		})
	}
}

// A secret expired and nobody was told (CIPP#4145).
func TestTheLogTellsOnceADayOfACredentialThatEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var log lockedBuffer
		a := contoso()
		a.Credential = proofs{
			give:   func(Ask) ([]Proof, error) { return []Proof{secretProof("client secret", canary)}, nil },
			health: Health{Kind: "certificate", Expires: time.Now().Add(31*24*time.Hour + time.Hour)},
		}
		e := running(t, Options{Transport: &entra{}, Log: zerolog.New(&log)})
		s := e.Source(a, mde)
		for range 50 {
			mustBearer(t, s)
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		if got := strings.Count(log.String(), "ends soon"); got != 2 {
			t.Errorf("told %d times in two days and two hours of which the first is out of the thirty days before the end, want 2\n%s", got, log.String())
		}
		if !strings.Contains(log.String(), `"days_left":29`) || !strings.Contains(log.String(), `"tenant":"contoso"`) {
			t.Errorf("days or tenant are missing:\n%s", log.String())
		}
	})
}

func TestANewNoticeOfACredentialIsToldAtOnceAndAgainADayLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var log lockedBuffer
		var notice atomic.Value
		notice.Store("")
		a := contoso()
		a.Credential = noticed{&notice}
		e := running(t, Options{Transport: &entra{}, Log: zerolog.New(&log)})
		s := e.Source(a, mde)
		spend := func(d time.Duration) {
			for range d / time.Hour {
				mustBearer(t, s)
				time.Sleep(time.Hour)
			}
		}
		spend(3 * time.Hour)
		notice.Store("The first of two is rejected.")
		spend(5 * time.Hour)
		notice.Store("The vault is away.")
		spend(30 * time.Hour)
		for text, want := range map[string]int{"The first of two is rejected.": 1, "The vault is away.": 2, "has ended": 4} {
			if got := strings.Count(log.String(), text); got != want {
				t.Errorf("%q was told %d times, want %d\n%s", text, got, want, log.String())
			}
		}
	})
}

// noticed has ended long ago and says what it is told to.
type noticed struct{ notice *atomic.Value }

func (noticed) Proofs(context.Context, Ask) ([]Proof, error) {
	return []Proof{secretProof("client secret", canary)}, nil
}

func (n noticed) Health() Health {
	return Health{Kind: "certificate", Expires: time.Unix(1, 0), Notice: n.notice.Load().(string)}
}

func TestDaysLeftCountsWholeDays(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for want, left := range map[int]time.Duration{0: time.Hour, 1: 24 * time.Hour, 29: 30*24*time.Hour - 1, -1: -time.Second, -2: -25 * time.Hour} {
		if got := DaysLeft(now.Add(left), now); got != want {
			t.Errorf("%v before the end: %d days, want %d", left, got, want)
		}
	}
}
