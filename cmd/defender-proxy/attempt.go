package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"defender-proxy/internal/admin"
)

// attempt is one reload, for all who asked for it before it began.
type attempt struct {
	because []string
	// done is closed once the others are set.
	done     chan struct{}
	reloaded *admin.Reloaded
	err      error
}

// join takes part in the reload that has not begun yet.
func (s *service) join(because string) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = &attempt{done: make(chan struct{})}
	}
	if !slices.Contains(s.asked.because, because) {
		s.asked.because = append(s.asked.because, because)
	}
	return s.asked
}

// begin takes the reload that has not begun yet away from those who come later:
// they want what is written after this. It is not mine where another began it.
func (s *service) begin(a *attempt) (because string, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != a {
		return "", false
	}
	s.asked = nil
	return strings.Join(a.because, ", "), true
}

// reload reads the configuration anew, as admin.Reload says; all who wait for
// their turn share one. because is for the log.
func (s *service) reload(ctx context.Context, because string) (*admin.Reloaded, error) {
	a := s.join(because)
	select {
	case <-a.done:
		return a.reloaded, a.err
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := errors.Join(ctx.Err(), s.ctx.Err()); err != nil {
		return nil, err
	}
	because, mine := s.begin(a)
	if !mine {
		<-a.done // the turn that it was done in has been given back
		return a.reloaded, a.err
	}
	defer close(a.done)
	if again, err := s.audit.Reopen(); err != nil {
		s.log.Error().Err(err).Msg("audit records go on into the file that was open")
	} else if again {
		s.log.Info().Msg("audit.file was moved away and is opened anew")
	}
	s.watch.act()
	a.reloaded, a.err = s.replace(because, false)
	return a.reloaded, a.err
}
