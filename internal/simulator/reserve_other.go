//go:build !unix

package simulator

// reserve does nothing where sockets have no such call: another program may be
// given a closed port.
func reserve(string) (release func()) { return func() {} }
