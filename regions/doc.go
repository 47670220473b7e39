// Package regions knows the endpoints of Microsoft's clouds, how they are doing
// and in which order to try them.
//
// A Monitor measures each endpoint with a cheap request without a token and
// hears from package proxy how real requests fared and how long they took. A Pool
// is what one tenant may use of one service: its Order begins with the region to
// try first. The nearest healthy region comes first, by measurement; it gives way
// only to one that is better by two margins, to one that had its place until an
// outage, to the one that the operator prefers, or when it is suspect or out. An
// Order never leaves the regions that are allowed: they are the residency guard.
//
// An endpoint is suspect from the first word that it cannot be reached: what
// follows goes elsewhere, and a probe looks within about a second; only that clears
// it. It is out after three failures in a row of any kind, and probed with backoff
// until it answers. An endpoint that is well and that nobody uses rests: it is not probed.
//
// What is left to others: package proxy sends the requests and decides which of
// them may be repeated elsewhere, and asks the Pool whether its budget of repeats
// allows one; cmd builds the Monitor with the transport that requests use, runs
// it, and turns its Changes into log lines.
package regions
