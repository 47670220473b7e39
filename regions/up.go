package regions

// Up reports whether nothing speaks against sending a request to e: it is not out
// and can be reached, as far as is known. It takes no lock.
func (e Endpoint) Up() bool {
	if e.health == nil {
		return false
	}
	select {
	case <-e.Lost():
		return false
	default:
		return e.health.failures.Load() < outAfter
	}
}
