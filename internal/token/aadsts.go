package token

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// advice is what an error code of Entra ID means to an operator. {app},
// {tenant}, {name}, {audience} and {consent} stand for the account's values; in
// the remedy, {clock} stands for what is known of the clocks, or nothing.
type advice struct {
	sentence, remedy string
	// transient codes go away by themselves.
	transient bool
	// guarded codes lead to a locked account when the same is tried again soon
	// (learn.microsoft.com/entra/identity/authentication/howto-password-smart-lockout).
	guarded bool
}

// codeOutsideItsTime is Entra's for an assertion dated by a wrong clock.
const codeOutsideItsTime = 700024

// rejectsProof reports whether the code speaks of the one secret, certificate or
// assertion that was presented, so that another one of the same application may
// do.
func rejectsProof(code int) bool {
	switch code {
	case 7000215, 7000222, 70002, 700027, 50012, 50013, 500133, codeOutsideItsTime, 900384:
		return true
	}
	return false
}

// words fills the advice in for an account.
func (a advice) words(acc Account, audience string, skew time.Duration) (sentence, remedy string) {
	clock := ""
	if notable(skew) {
		clock = " " + skewSentence(skew)
	}
	r := strings.NewReplacer(
		"{app}", acc.ClientID,
		"{tenant}", string(acc.Tenant),
		"{name}", acc.Name,
		"{audience}", audience,
		"{consent}", acc.ConsentURL(),
		"{clock}", clock,
	)
	return r.Replace(a.sentence), r.Replace(a.remedy)
}

var codePattern = regexp.MustCompile(`\bAADSTS([0-9]{4,9})\b`)

// AADSTS finds the code in Entra's error_description, without its letters, or
// gives 0.
func AADSTS(description string) int {
	m := codePattern.FindStringSubmatch(description)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // nine digits fit
	return n
}

// meaning is the description without what follows the sentence: the ids of the
// trace, which are of use to nobody but Microsoft's support, and the time.
func meaning(description string) string {
	for _, mark := range []string{"\r", "\n", " Trace ID:"} {
		description, _, _ = strings.Cut(description, mark)
	}
	return description
}

// notable reports whether clocks differ enough to say so. Entra accepts five
// minutes; a minute is already a fault of the machine.
func notable(skew time.Duration) bool { return skew.Abs() > time.Minute }

// skewSentence tells how this machine's clock stands to Entra's. A positive
// skew is a clock that is behind.
func skewSentence(skew time.Duration) string {
	word := "behind"
	if skew < 0 {
		word = "ahead of"
	}
	return "This machine's clock is " + skew.Abs().Round(time.Second).String() + " " + word + " Entra ID's."
}
