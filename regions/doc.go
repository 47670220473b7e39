// Package regions knows the endpoints of Microsoft's clouds, how they are doing
// and in which order to try them.
//
// A Monitor measures each endpoint with a cheap request without a token and
// hears from package proxy how real requests fared. A Pool is what one tenant
// may use of one service: its Order begins with the region to try first. The
// nearest healthy region comes first, by measurement; it gives way only to one
// that is better by two margins, to the one that the operator prefers, or when
// it is out. An Order never leaves the regions that are allowed: they are the
// residency guard.
//
// What is left to others: package proxy sends the requests and decides which of
// them may be repeated elsewhere; cmd builds the Monitor with the transport that
// requests use, runs it, and turns its Changes into log lines.
//
// Not built yet: the time to first byte of real requests as a measurement, rest
// for pools that nobody uses, a region held for the pages of one query.
package regions
