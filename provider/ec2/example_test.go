package ec2_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
)

func ExampleNew() {
	// Without a Config the SDK finds credentials and region by itself.
	cloud, err := ec2.New(context.Background(), ec2.Options{
		Config: &aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "secret", "")},
		Region: "eu-central-1",
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = cloud.Launch(context.Background(), provider.Launch{Token: "web-1", Image: ""})
	fmt.Println(cloud.Region(), err)
	_, err = ec2.New(context.Background(), ec2.Options{Config: &aws.Config{}})
	fmt.Println(err)
	// Output:
	// eu-central-1 Launch web-1: invalid: Image is empty, want the name of an image
	// ec2: Options.Region is empty, and the configuration has none (AWS_REGION, or a profile's)
	// ec2: Options.Config has no Credentials
}
