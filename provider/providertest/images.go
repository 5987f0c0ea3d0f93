package providertest

import (
	"fmt"

	"github.com/scalr-go/scalr/provider"
)

func imageCases() []testCase {
	return []testCase{
		{"Images/Launch", func(s *suite) { imageLaunches(s, capability[provider.Images](s)) }},
		{"Images/Refused", func(s *suite) { imageRefused(s, capability[provider.Images](s)) }},
	}
}

func imageLaunches(s *suite, p provider.Images) {
	source := s.running()
	made, err := p.CreateImage(s.ctx, provider.ImageSpec{Token: s.token(), Name: "scalr-test", Instance: source.ID, Tags: s.tags})
	s.ok(err, "a good request for one image succeeds")
	s.eventually("an image gets ready", func() (bool, string) {
		list, err := p.Images(s.ctx, s.tags)
		s.ok(err, "images can be listed")
		for _, x := range list {
			if x.ID == made.ID {
				return x.Ready, fmt.Sprintf("%+v", x)
			}
		}
		return false, made.ID + " is not listed"
	})
	left := s.until(provider.Running, source.ID)
	s.rule(left.Private == source.Private, "making an image leaves the instance as it is", "%s before, %s after", source, left)
	from := func(l *provider.Launch) { l.Image = made.ID }
	i := s.running(from)
	s.rule(i.Image == made.ID, "the list shows what was launched", "Image is %q, want %q", i.Image, made.ID)
	s.terminate(source.ID)
	s.running(from) // the image does not need the instance that it was made of

	s.ok(p.DeleteImage(s.ctx, made.ID), "an image can be deleted")
	s.until(provider.Running, i.ID)
	s.unlisted(images, made.ID)
	l := s.Launch
	l.Token, l.Tags, l.Image = s.token(), s.tags, made.ID
	_, err = s.Provider.Launch(s.ctx, l)
	s.refused(err, "a launch of a deleted image is ErrInvalid or ErrNotFound", provider.ErrInvalid, provider.ErrNotFound)
}

func imageRefused(s *suite, p provider.Images) {
	_, err := p.CreateImage(s.ctx, provider.ImageSpec{Token: s.token(), Tags: s.tags})
	s.refused(err, "an image of no instance is ErrInvalid", provider.ErrInvalid)
	i := s.launch()
	s.terminate(i.ID)
	_, err = p.CreateImage(s.ctx, provider.ImageSpec{Token: s.token(), Instance: i.ID, Tags: s.tags})
	s.refused(err, "an image of an instance that is gone is ErrNotFound or ErrInvalid", provider.ErrNotFound, provider.ErrInvalid)
}
