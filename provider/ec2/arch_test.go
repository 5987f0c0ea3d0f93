package ec2_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/ec2"
)

func TestArch(t *testing.T) {
	for size, want := range map[string]string{
		"m5.large": "x86_64", "m5a.large": "x86_64", "c7i-flex.large": "x86_64", "g4dn.xlarge": "x86_64", "gr6.4xlarge": "x86_64",
		"p4d.24xlarge": "x86_64", "x2iedn.32xlarge": "x86_64", "inf2.xlarge": "x86_64", "mac1.metal": "x86_64", "t2.micro": "x86_64",
		"t4g.small": "arm64", "m7gd.metal": "arm64", "c6gn.medium": "arm64", "g5g.xlarge": "arm64", "im4gn.large": "arm64",
		"is4gen.large": "arm64", "x2gd.medium": "arm64", "hpc7g.16xlarge": "arm64", "a1.medium": "arm64", "mac2.metal": "arm64",
		"mac2-m2pro.metal": "arm64", "p6e-gb200.36xlarge": "arm64", "u7i-12tb.224xlarge": "x86_64",
		"": "", "large": "", "u-6tb1.metal": "", "m5": "", "M5.large": "",
	} {
		require.Equal(t, want, ec2.Arch(size), size)
	}
}
