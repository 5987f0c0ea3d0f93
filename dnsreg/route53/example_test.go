package route53_test

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/route53"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/route53"
)

func Example() {
	// A program takes its credentials from package config of the SDK.
	client := sdk.New(sdk.Options{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")})
	registrar, err := route53.New(route53.Options{Client: client})
	if err != nil {
		fmt.Println(err)
		return
	}
	// No change set leaves a live name without an address, or removes more than ten RRsets.
	guarded := dnsreg.Guarded{Registrar: registrar, Guard: dnsreg.Guard{MaxDeleted: 10}}
	caps := guarded.Capabilities()
	fmt.Println(caps.Atomic, caps.Preconditions, caps.MaxChanges)
	// Output: true true 500
}
