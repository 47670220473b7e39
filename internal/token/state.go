package token

import "time"

// State is a snapshot of a Source for readiness, metrics and people. It holds
// no token and no secret. Readiness that should last while nobody calls asks
// Bearer instead: State leaves an idle source to lapse, Bearer keeps it warm.
type State struct {
	// Tenant is the tenant's configured name.
	Tenant   string `json:"tenant"`
	Cloud    string `json:"cloud"`
	ClientID string `json:"client_id"`
	Audience string `json:"audience"`

	// Credential is what is known of the credential.
	Credential Health `json:"credential"`

	// Live says there is a token that may be handed out now. What follows
	// describes it, and is zero when there is none.
	Live      bool          `json:"live"`
	Claims    *Claims       `json:"claims,omitempty"`
	Age       time.Duration `json:"-"`
	ExpiresIn time.Duration `json:"-"`
	Expires   time.Time     `json:"expires,omitzero"`

	// Error is why the last fetch failed; nil after a success or before the
	// first fetch. A live token may stand beside it.
	Error    *Error    `json:"error,omitempty"`
	FailedAt time.Time `json:"failed_at,omitzero"`
	// FailuresInRow counts since the last success; Fetches and Failures since
	// the start of the process.
	FailuresInRow int    `json:"failures_in_row"`
	Fetches       uint64 `json:"fetches"`
	Failures      uint64 `json:"failures"`

	// Fetching says that a fetch is queued or under way. NextFetch is when the
	// background begins the next one; zero while one is under way and for a
	// source that nobody uses.
	Fetching  bool      `json:"fetching"`
	NextFetch time.Time `json:"next_fetch,omitzero"`

	// Skew is Entra's clock less ours as of the last answer, to about a second;
	// meaningless unless SkewKnown.
	Skew      time.Duration `json:"-"`
	SkewKnown bool          `json:"-"`
}

// State tells how the source is. It does not count as use.
func (s *Source) State() State {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	st := State{
		Credential:    s.health(),
		Tenant:        s.account.Name,
		Cloud:         s.account.Cloud,
		ClientID:      s.account.ClientID,
		Audience:      s.audience,
		FailuresInRow: s.failures,
		Fetches:       s.fetches,
		Failures:      s.failed,
		Fetching:      s.flight != nil,
		Skew:          s.skew,
		SkewKnown:     s.skewed,
	}
	if b := s.current.Load(); b != nil && b.live(now) {
		st.Live = true
		st.Claims = b.claims
		st.Age = now.since(b.acquired)
		st.ExpiresIn = b.life - st.Age
		st.Expires = b.Expires()
	}
	if s.failure != nil {
		failure := *s.failure
		failure.RetryAfter = s.held(now)
		st.Error = &failure
		st.FailedAt = s.failedAt.time()
	}
	if s.flight == nil && s.wanted(now) {
		st.NextFetch = now.time().Add(max(s.due(now), 0))
	}
	return st
}

func (s *Source) health() Health {
	if s.account.Credential == nil {
		return Health{}
	}
	return s.account.Credential.Health()
}
