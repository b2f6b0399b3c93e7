"""Pictures made for the tests: what a camera would deliver, and what it would not."""

import io
import random

from PIL import Image, ImageDraw

# The colours of a made picture's quarters, as one sees them: top left, top right, bottom left, bottom right.
QUARTERS = ("red", "lime", "blue", "yellow")
ORIENTATION, GPS = 0x0112, 0x8825
MAKE = 0x010F

# How a camera that wrote EXIF orientation N has turned the picture: what undoes it, undone.
TURNED_BY = {
    1: (),
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_90,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_270,),
}


def quarters(width=1600, height=1000):
    """A picture of four plain quarters: any turn, flip or crop shows."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for number, colour in enumerate(QUARTERS):
        left, top = (number % 2) * width // 2, (number // 2) * height // 2
        draw.rectangle((left, top, left + width // 2, top + height // 2), fill=colour)
    return image


def noise(width, height, seed=0):
    """A picture that does not compress."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def encode(image, kind, **options):
    """The image as a file's bytes; `kind` as Pillow names it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(width=1600, height=1000, orientation=None, gps=False, quality=85):
    """A JPEG of quarters as a camera would store it, turned, with EXIF that says so."""
    image = quarters(width, height)
    for turn in TURNED_BY[orientation or 1]:
        image = image.transpose(turn)
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
        exif[MAKE] = "Barnyard Optics"
    if gps:
        exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 36.0)})
        exif[GPS] = exif.get_ifd(GPS)
    return encode(image, "JPEG", quality=quality, exif=exif) if len(exif) else encode(image, "JPEG", quality=quality)


def decode(data):
    """The image in a file's bytes, read to its end."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def corners(image):
    """The names of the colours in the middle of each quarter; a colour far from all four is None."""
    image = image.convert("RGB")
    known = {colour: Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in QUARTERS}
    found = []
    for y in (0.25, 0.75):
        for x in (0.25, 0.75):
            pixel = image.getpixel((int(image.width * x), int(image.height * y)))
            near = [name for name, rgb in known.items() if max(abs(a - b) for a, b in zip(rgb, pixel)) < 48]
            found.append(near[0] if near else None)
    return tuple(found)
