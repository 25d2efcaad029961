
// A film, its button, its slider and the cursor over its line of time go together. Without this script the browser's own
// controls play the film, and every figure of the page is there all the same.
for (const player of document.querySelectorAll(".player[data-told]")) {
  const video = player.querySelector("video");
  if (!video) continue;
  const {labels, seconds, shares, reach} = JSON.parse(player.dataset.told);
  const length = Number(player.dataset.length);
  const slider = player.querySelector("input");
  const button = player.querySelector("button");

  const answer = (second) => {
    let nearest = 0;
    seconds.forEach((each, place) => {
      if (Math.abs(each - second) < Math.abs(seconds[nearest] - second)) nearest = place;
    });
    if (Math.abs(seconds[nearest] - second) > reach) return "no answer";
    const told = shares[nearest];
    const first = told.indexOf(Math.max(...told));
    return `${labels[first]} ${Math.round(100 * told[first])}\u00a0%`;
  };
  const show = () => {
    const second = Math.min(video.currentTime, length);
    const words = `${second.toFixed(1)}\u00a0s: ${answer(second)}`;
    player.style.setProperty("--at", second / length);
    slider.value = second;
    slider.setAttribute("aria-valuetext", words);
    player.querySelector("output").textContent = words;
    button.firstElementChild.textContent = video.paused ? "Play" : "Pause";
    if (!video.paused) requestAnimationFrame(show);
  };
  for (const event of ["play", "pause", "ended", "seeked", "timeupdate"]) video.addEventListener(event, show);
  slider.addEventListener("input", () => {
    video.pause();
    video.currentTime = slider.value;
  });
  for (const each of [button, video]) each.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
  video.controls = false; // they would lie over the face
  for (const each of player.querySelectorAll("[hidden]")) each.hidden = false;
  show();
}
