package tsig_test

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/dnsreg/tsig"
)

func Example() {
	key := tsig.Key{Name: "farm.", Secret: []byte("a secret that both sides know...")}
	request := []byte("\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x06\x00\x01")

	client := tsig.Exchange{Key: key}
	signed := client.Sign(request, time.Now())
	_, _, err := tsig.Receive([]tsig.Key{key}, signed, time.Now())
	fmt.Println(key, err)

	signed[13] ^= 1 // somebody asks for another name
	_, _, err = tsig.Receive([]tsig.Key{key}, signed, time.Now())
	fmt.Println(err)
	// Output:
	// tsig.Key(farm.) <nil>
	// the signature is wrong (BADSIG)
}
