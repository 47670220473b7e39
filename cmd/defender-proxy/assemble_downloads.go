package main

import (
	"crypto/sha256"

	"defender-proxy/internal/config"
	"defender-proxy/proxy"
)

// downloads makes the relay of download links, nil where it is off.
func (p *parts) downloads() (*proxy.Downloads, error) {
	if !p.config.Relay.Downloads {
		return nil, nil
	}
	keys, err := p.config.Relay.SealingKeys(p.env)
	if err != nil {
		return nil, err
	}
	p.sealed = contentOfKeys(keys)
	if len(keys) == 0 {
		keys = [][]byte{p.sealing}
	}
	return proxy.NewDownloads(keys), nil
}

// sealingOf takes note of the keys of download links. They are read anew, because a
// file of a key may have changed in its place.
func (c *core) sealingOf(cfg *config.Config) (content, error) {
	if !cfg.Relay.Downloads {
		return content{}, nil
	}
	keys, err := cfg.Relay.SealingKeys(c.env)
	return contentOfKeys(keys), err
}

// contentOfKeys stands for keys in their order.
func contentOfKeys(keys [][]byte) content {
	h := sha256.New()
	for _, key := range keys {
		sum := sha256.Sum256(key)
		_, _ = h.Write(sum[:])
	}
	return content(h.Sum(nil))
}
