"""Augmented images: what each change does, and that they depend on seed, epoch and position alone."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.augmentation import AugmentationSpec, Augmenter, basis_size
from mlpd.core.devices.arrays import Cpu
from mlpd.core.plans.recording import RecordingDevice
from mlpd.core.random import permutation
from mlpd.core.steps.batches import Feed

from .family import AUGMENTATION, AUGMENTED, FAMILY, brought, finish, run, scaled

HEIGHT, WIDTH = 9, 11
NOTHING = AugmentationSpec(HEIGHT, WIDTH)
EVERYTHING = AugmentationSpec(HEIGHT, WIDTH, 2.0, 20.0, 0.2, 0.3, 1.0, 2.0)
CHANGES = {
    "shift": replace(NOTHING, shift_pixels=2.0),
    "rotation": replace(NOTHING, rotation_degrees=30.0),
    "scale": replace(NOTHING, scale=0.3),
    "shear": replace(NOTHING, shear=0.5),
    "elastic": replace(NOTHING, elastic_pixels=1.0),
}


def images(count=100, dtype=np.uint8, height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height * width)).astype(dtype)


def warped(spec, rows, seed=1, epoch=0, position=0):
    out = np.empty(rows.shape, np.float32)
    Augmenter(spec, seed)(rows, epoch, position, out)
    return out


def coordinates(spec, count=200, seed=1):
    """Where pixels come from, (count, height, width) of x and of y, read off two images of ramps."""
    y, x = np.mgrid[: spec.image_height, : spec.image_width].astype(np.float32)
    return tuple(
        warped(spec, np.tile(ramp.ravel(), (count, 1)), seed).reshape(count, *ramp.shape).astype(float)
        for ramp in (x, y)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int32])
def test_settings_of_zero_change_nothing(dtype):
    rows = images(dtype=dtype)
    assert np.array_equal(warped(NOTHING, rows), rows)


@pytest.mark.parametrize("spec", CHANGES.values(), ids=CHANGES)
def test_every_setting_changes_something(spec):
    rows = images()
    assert (np.abs(warped(spec, rows) - rows).max(axis=1) > 1).mean() > 0.9


@pytest.mark.parametrize("spec", CHANGES.values(), ids=CHANGES)
def test_pixels_stay_within_those_of_their_image(spec):
    rows = images()
    out = warped(spec, rows)
    assert (out >= rows.min(axis=1, keepdims=True)).all()
    assert (out <= rows.max(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("spec", [EVERYTHING, *CHANGES.values()], ids=["everything", *CHANGES])
def test_an_image_of_one_grey_stays_as_it_is(spec):
    rows = np.full((20, HEIGHT * WIDTH), 77, np.uint8)
    assert np.array_equal(warped(spec, rows), rows)


@pytest.mark.parametrize("cut", [1, 7, 32, 33, 99])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (28, 28)])
def test_an_image_depends_on_seed_epoch_and_position_however_the_batch_is_cut(cut, size):
    spec, rows = replace(EVERYTHING, image_height=size[0], image_width=size[1]), images(100, np.uint8, *size)
    whole = warped(spec, rows, position=40)
    parts = [warped(spec, rows[start : start + cut], position=40 + start) for start in range(0, len(rows), cut)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}, {"position": 1}])
def test_another_seed_epoch_or_position_gives_another_image(change):
    rows = np.tile(images(1), (50, 1))
    plain, other = warped(EVERYTHING, rows), warped(EVERYTHING, rows, **change)
    assert not (plain == other).all(axis=1).any()
    if "position" in change:
        assert np.array_equal(plain[1:], other[:-1])


def test_a_shift_moves_every_pixel_by_one_amount_below_its_limit():
    x, y = coordinates(CHANGES["shift"])
    grid_y, grid_x = np.mgrid[:HEIGHT, :WIDTH]
    for moved, grid in ((x, grid_x), (y, grid_y)):
        inside = (slice(None), slice(2, -2), slice(2, -2))
        shifts = (moved - grid)[inside].reshape(len(moved), -1)
        assert np.ptp(shifts, axis=1).max() < 1e-5
        assert 1.9 < np.abs(shifts).max() <= 2
        assert shifts[:, 0].mean() == pytest.approx(0, abs=0.3)
        assert shifts[:, 0].std() == pytest.approx(2 / np.sqrt(3), rel=0.1)


def test_a_shift_by_whole_pixels_is_known_exactly():
    """Sampled at a shift close to a whole number, an image is itself, moved, with its edge repeated."""
    spec, rows = replace(NOTHING, shift_pixels=3.0), images(3000)
    x, y = coordinates(spec, 3000)
    shift_x, shift_y = (moved[:, 4, 5] - centre for moved, centre in ((x, 5), (y, 4)))
    distance = np.maximum(np.abs(shift_x - np.round(shift_x)), np.abs(shift_y - np.round(shift_y)))
    out = warped(spec, rows).reshape(-1, HEIGHT, WIDTH)
    near = np.argsort(distance)[:20]
    assert distance[near].max() < 0.1
    for index in near:
        dx, dy = round(shift_x[index]), round(shift_y[index])
        lines, columns = np.clip(np.arange(HEIGHT) + dy, 0, HEIGHT - 1), np.clip(np.arange(WIDTH) + dx, 0, WIDTH - 1)
        expected = rows[index].reshape(HEIGHT, WIDTH)[np.ix_(lines, columns)]
        assert np.abs(out[index] - expected).max() <= 2 * 255 * distance[index] + 1e-3


def test_sampling_between_pixels_is_bilinear():
    spec, rows = CHANGES["rotation"], images(40)
    x, y = coordinates(spec, 40)
    out = warped(spec, rows).reshape(40, HEIGHT, WIDTH)
    pixels = rows.reshape(40, HEIGHT, WIDTH).astype(float)
    left, top = (np.minimum(np.floor(c), limit - 2).astype(int) for c, limit in ((x, WIDTH), (y, HEIGHT)))
    i = np.arange(40)[:, None, None]
    across, down = x - left, y - top
    upper = pixels[i, top, left] * (1 - across) + pixels[i, top, left + 1] * across
    lower = pixels[i, top + 1, left] * (1 - across) + pixels[i, top + 1, left + 1] * across
    assert np.allclose(out, upper * (1 - down) + lower * down, atol=0.02)


def test_a_rotation_turns_about_the_centre_by_at_most_its_limit():
    x, y = coordinates(replace(NOTHING, rotation_degrees=30.0))
    assert np.allclose(x[:, 4, 5], 5, atol=1e-5)
    assert np.allclose(y[:, 4, 5], 4, atol=1e-5)
    angles = np.degrees(np.arctan2(y[:, 4, 7] - 4, x[:, 4, 7] - 5))
    assert 28 < np.abs(angles).max() <= 30
    assert np.allclose(np.hypot(x[:, 4, 7] - 5, y[:, 4, 7] - 4), 2, atol=1e-4)
    assert np.allclose(x[:, 6, 5] - 5, -(y[:, 4, 7] - 4), atol=1e-4)


def test_an_image_that_is_round_survives_any_rotation():
    size = 25
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    row = (255 * np.exp(-(x**2 + y**2) / 18)).ravel()[None].astype(np.float32)
    out = warped(AugmentationSpec(size, size, rotation_degrees=180.0), np.tile(row, (50, 1)))
    assert np.abs(out - row).max() < 8  # what bilinear sampling flattens at most


def test_a_rotation_by_a_right_angle_turns_a_square_image():
    size, spec = 7, AugmentationSpec(7, 7, rotation_degrees=180.0)
    rows = np.tile(images(1, height=size, width=size), (4000, 1))
    x, y = coordinates(spec, 4000)
    angles = np.degrees(np.arctan2(y[:, 3, 4] - 3, x[:, 3, 4] - 3))
    near = np.flatnonzero(np.abs(angles - 90) < 0.3)
    assert len(near) > 2
    turned = np.rot90(rows[0].reshape(size, size), -1)
    other = np.rot90(rows[0].reshape(size, size), 1)
    out = warped(spec, rows).reshape(-1, size, size)[near]
    assert min(np.abs(out - image).mean(axis=(1, 2)).max() for image in (turned, other)) < 5


def test_a_scale_keeps_the_centre_and_the_angles():
    x, y = coordinates(CHANGES["scale"])
    size = 2 / (x[:, 4, 7] - 5)
    assert np.allclose(2 / (y[:, 6, 5] - 4), size, atol=1e-4)
    assert 0.7 <= size.min() < 0.72
    assert 1.28 < size.max() <= 1.3
    assert np.allclose(y[:, 4, 7], 4, atol=1e-5)


def test_a_shear_slants_columns_and_keeps_lines():
    x, y = coordinates(CHANGES["shear"])
    assert np.allclose(y, np.mgrid[:HEIGHT, :WIDTH][0], atol=1e-5)
    slants = (x[:, 6, 5] - x[:, 2, 5]) / 4
    assert 0.48 < np.abs(slants).max() <= 0.5
    assert np.allclose(x[:, 4, 7] - x[:, 4, 5], 2, atol=1e-5)


def test_an_elastic_displacement_has_its_deviation_everywhere_and_is_smooth():
    size, pixels, smoothness = 21, 0.7, 3.0
    spec = AugmentationSpec(size, size, elastic_pixels=pixels, elastic_smoothness_pixels=smoothness)
    x, y = coordinates(spec, 3000)
    grid = np.mgrid[:size, :size]
    inside = (slice(None), slice(4, -4), slice(4, -4))
    fields = [(moved - origin)[inside] for moved, origin in ((x, grid[1]), (y, grid[0]))]
    for field in fields:
        assert np.abs(field.mean(axis=0)).max() < 0.1
        assert np.abs(field.std(axis=0) / pixels - 1).max() < 0.1
        neighbours = np.corrcoef(field[:, 5, 5], field[:, 5, 6])[0, 1]
        far = np.corrcoef(field[:, 0, 0], field[:, 12, 12])[0, 1]
        assert neighbours > 0.9
        assert abs(far) < 0.1
    assert abs(np.corrcoef(fields[0][:, 5, 5], fields[1][:, 5, 5])[0, 1]) < 0.1


@pytest.mark.parametrize("shape", [(2, 2), (2, 30), (28, 28)])
def test_images_of_any_shape_can_be_warped(shape):
    height, width = shape
    spec = replace(EVERYTHING, image_height=height, image_width=width)
    rows = images(5, height=height, width=width)
    out = warped(spec, rows)
    assert np.isfinite(out).all()
    assert not np.array_equal(out, rows)


@pytest.mark.parametrize("case", AUGMENTED.values(), ids=AUGMENTED)
@pytest.mark.parametrize("first_step", [0, 1])
def test_a_feed_brings_the_rows_of_the_order_warped_at_their_places(case, first_step):
    spec, count = case.spec, len(case.data)
    augmenter, places = Augmenter(spec.augmentation, spec.seed), []
    for batch, rows in brought(case, Cpu(), first_step):
        order = permutation(spec.seed, batch.epoch, count) if spec.rows_per_step < count else np.arange(count)
        chosen = order[batch.first : batch.first + batch.rows]
        expected = np.empty((batch.rows, case.data.inputs.shape[1]), np.float32)
        augmenter(case.data.inputs[chosen], batch.epoch, batch.first, expected)
        assert rows.inputs[: batch.rows].tobytes() == scaled(case, expected).tobytes()
        assert np.array_equal(rows.labels[: batch.rows], case.data.targets[chosen])
        places.append(batch.step)
    assert places == list(range(first_step, spec.step_count(count)))


def test_augmented_rows_must_be_staged_in_order():
    case = FAMILY["augmented"]
    feed = Feed(RecordingDevice(Cpu()), case.spec, case.examples(), 16, 1, 1)
    with feed.open(0):
        feed.begin(0)
        feed.stage(0, 0)
        with pytest.raises(RuntimeError, match=r"\(0, 16\) next, got \(0, 32\)"):
            feed.stage(0, 32)


def test_a_run_with_settings_of_zero_is_the_run_without_augmentation():
    case = run(epoch_count=1)
    nothing = AugmentationSpec(AUGMENTATION.image_height, AUGMENTATION.image_width)
    assert finish(case.but(augmentation=nothing).start()) == finish(case.start())


@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_the_basis_has_the_size_that_memory_is_estimated_by(elastic):
    spec = AugmentationSpec(12, 20, elastic_pixels=elastic, elastic_smoothness_pixels=2.5)
    assert basis_size(spec) == Augmenter(spec, 0)._basis.size
