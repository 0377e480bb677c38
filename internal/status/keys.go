package status

import "time"

// Keys are the certificates and keys of a cluster, without a secret.
type Keys struct {
	Certificates []Certificate
	Heartbeats   []string // numbers of the keys; the first seals
	UnderWay     []string // what is being replaced
}

// A Certificate is one that counts.
type Certificate struct {
	Name, Purpose string
	Until         time.Time
	By            string // number of the authority
	Signs         bool   // it is that of an authority
	Trouble       string
}
